//! Cluster events about Tasks. They are for people: no reconcile waits for one, and one too many is dropped.

use sentinel_core::reconcile::Notice;

use super::context::Context;
use super::counters::Counters;
use crate::cluster::Publication;
use crate::later::later;
use crate::resource::Task;

/// Publishes an event about a Task in the background.
pub(super) fn publish(context: &Context, task: &Task, notice: Notice) {
    let Ok(permit) = context.events.clone().try_acquire_owned() else {
        Counters::add(&context.counters.dropped_events);
        return;
    };
    let counters = context.counters.clone();
    let (cluster, task) = (context.parts.cluster.clone(), task.clone());
    let (background, span) = (context.background.clone(), tracing::Span::current());
    let publish = async move {
        match cluster.publish(&task, &notice).await {
            Ok(Publication::Published) => {}
            Ok(Publication::LeftOut) => Counters::add(&counters.dropped_events),
            Err(error) => {
                let category = error.category();
                tracing::warn!(%error, category, reason = notice.reason, "failed to publish a cluster event");
            }
        }
        drop(permit);
    };
    later(move || span.in_scope(|| background.spawn(publish)));
}
