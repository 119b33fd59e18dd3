//! Lines and gaps as the API shows them.

use sentinel_api::view::{GapView, LineItemView, LineView, MergedItemView};
use sentinel_core::stream::window::{LineState, WindowItem};

use crate::logs::merged::MergedItem;

pub(super) fn view(item: WindowItem) -> LineItemView {
    match item {
        WindowItem::Line(line) => LineItemView::Line(LineView {
            line: line.number,
            position: line.position,
            stream: line.stream,
            at_micros: line.at_micros,
            text: String::from_utf8_lossy(&line.text).into_owned(),
            continues: line.continues,
            continued: line.state == LineState::Continued,
            open: line.state == LineState::Open,
        }),
        WindowItem::Gap { position, len, stream, at_micros, reason } => LineItemView::Gap(GapView {
            position,
            stream,
            at_micros: (at_micros != 0).then_some(at_micros),
            dropped: len,
            reason: reason.as_str().to_owned(),
        }),
    }
}

pub(super) fn item_view(item: MergedItem) -> MergedItemView {
    let MergedItem { log, item, at_micros, is_late } = item;
    let mut item = view(item);
    let mut node_at_micros = None;
    let shown = match &mut item {
        LineItemView::Line(line) => Some(&mut line.at_micros),
        LineItemView::Gap(gap) => gap.at_micros.as_mut(),
    };
    if let Some(shown) = shown
        && *shown != at_micros
    {
        node_at_micros = Some(std::mem::replace(shown, at_micros));
    }
    let node = log.attempt.node.to_string();
    MergedItemView { node, attempt: log.attempt.attempt, node_at_micros, late: is_late, item }
}
