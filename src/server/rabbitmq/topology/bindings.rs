//! Bindings: AMQP can make them, and can't be asked for them. The management interface can.

use super::{Declaration, Difference, DifferenceKind, Topology};
use crate::server::rabbitmq::Unavailable;
use crate::server::rabbitmq::management::{BoundKey, Management};

/// The bindings of `topology` that are not there. Others that are there are the operator's.
pub async fn unbound(management: &Management, topology: &Topology) -> Result<Vec<Difference>, Unavailable> {
    Ok(missing(&management.all_bindings().await?, topology))
}

fn missing(bound: &[BoundKey], topology: &Topology) -> Vec<Difference> {
    let wanted = topology.declarations().filter_map(|declaration| match declaration {
        Declaration::Binding(queue, binding) => Some((queue, binding)),
        Declaration::Exchange(_) | Declaration::Queue(_) => None,
    });
    let is_there = |queue: &str, exchange: &str, key: &str| {
        bound.iter().any(|bound| bound.leads_to(queue) && bound.source == exchange && bound.routing_key == key)
    };
    let missing = wanted.filter(|(queue, binding)| !is_there(&queue.name, &binding.exchange, &binding.key));
    missing
        .map(|(queue, binding)| Difference {
            name: format!("queue {}", queue.name),
            what: format!("is not bound to exchange {} by key \"{}\"", binding.exchange, binding.key),
            kind: DifferenceKind::Unbound,
        })
        .collect()
}
