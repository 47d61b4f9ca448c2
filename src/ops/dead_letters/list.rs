//! `list` and `show`.

use super::filter::Filter;
use super::view::{Detail, View};
use crate::ops::exit::Advise as _;
use crate::ops::{Context, Exit, terminal};
use crate::server::queue::DeadLetters;

pub async fn list(
    context: &Context,
    letters: &dyn DeadLetters,
    filter: &Filter,
    limit: usize,
    bodies: bool,
) -> anyhow::Result<Exit> {
    let (mut shown, mut more, mut beyond) = (Vec::new(), 0_u64, 0);
    let detail = if bodies { Detail::Bodies } else { Detail::Line };
    for family in filter.families(letters.families()) {
        let mut walk = letters.walk(family).await?;
        while let Some(letter) = walk.next().await? {
            match filter.chooses(&letter) {
                true if shown.len() < limit => shown.push(View::of(&letter, detail)),
                true => more += 1,
                false => {}
            }
        }
        beyond += walk.beyond();
        walk.end().await?;
    }
    if context.output.is_json() {
        context.output.json(&shown)?;
    } else {
        let rows: Vec<_> = shown.iter().map(View::cells).collect();
        let width = terminal::width();
        let lines = terminal::fitting(View::HEADER.to_vec(), rows, &View::DISPENSABLE, View::SHORT_REASON, width);
        let text: String = lines.iter().map(|line| format!("{}\n", terminal::fit(line, width))).collect();
        context.output.text(&text)?;
    }
    if more > 0 {
        context.output.note(format_args!("{more} more: see --limit"));
    }
    if beyond > 0 {
        context.output.note(format_args!("{beyond} more, behind these, were not looked at"));
    }
    Ok(Exit::Done)
}

pub async fn show(context: &Context, letters: &dyn DeadLetters, id: String, bodies: bool) -> anyhow::Result<Exit> {
    let detail = if bodies { Detail::Bodies } else { Detail::Fields };
    for family in letters.families() {
        let mut walk = letters.walk(*family).await?;
        let mut found = None;
        while let Some(letter) = walk.next().await? {
            if letter.id == id {
                found = Some(View::of(&letter, detail));
                break;
            }
        }
        walk.end().await?;
        if let Some(view) = found {
            context.output.value(&view, || view.text())?;
            return Ok(Exit::Done);
        }
    }
    Err(anyhow::anyhow!("there is no dead letter {id}"))
        .hint("`aula dead-letters list` names them; one that was put back and died again has another name")
}
