//! The file's placeholders.

use super::{Argument, Binding, Queue, TopologyError, Values};

/// `queue` with everything in the place of its name.
pub(super) fn fill(
    queue: &Queue,
    values: &Values,
    shard: Option<u16>,
    gateway: Option<&str>,
) -> Result<Queue, TopologyError> {
    let fill_in = |text: &str| fill_text(text, values, shard, gateway);
    let mut arguments = queue.arguments.clone();
    for argument in arguments.values_mut() {
        let Argument::Text(text) = &*argument else { continue };
        let filled = fill_in(text)?;
        if filled != *text {
            // Only numbers have a placeholder among the arguments.
            let number = filled.parse().map_err(|_not_one| TopologyError::File(format!("{filled} is no number")))?;
            *argument = Argument::Number(number);
        }
    }
    let bindings = queue
        .bindings
        .iter()
        .map(|binding| Ok(Binding { exchange: binding.exchange.clone(), key: fill_in(&binding.key)? }));
    Ok(Queue {
        name: fill_in(&queue.name)?,
        each: None,
        durable: queue.durable,
        exclusive: queue.exclusive,
        arguments,
        bindings: bindings.collect::<Result<_, TopologyError>>()?,
    })
}

fn fill_text(text: &str, values: &Values, shard: Option<u16>, gateway: Option<&str>) -> Result<String, TopologyError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| unknown(text))?;
        filled.push_str(before);
        match (name, shard, gateway) {
            ("shards", ..) => filled.push_str(&values.shards.to_string()),
            ("shard", Some(shard), _) => filled.push_str(&shard.to_string()),
            ("gateway", _, Some(gateway)) => filled.push_str(gateway),
            ("max_depth_per_shard", ..) => {
                filled.push_str(&values.max_depth.div_ceil(u64::from(values.shards.max(1))).to_string());
            }
            ("delivery_limit", ..) => filled.push_str(&values.delivery_limit.to_string()),
            ("search_timeout_ms", ..) => filled.push_str(&values.search_timeout.as_millis().to_string()),
            ("events_backlog", ..) => filled.push_str(&values.events_backlog.to_string()),
            _ => return Err(unknown(text)),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn unknown(text: &str) -> TopologyError {
    TopologyError::File(format!("{text}: an unknown placeholder"))
}
