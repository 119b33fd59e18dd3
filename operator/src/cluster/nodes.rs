//! All Nodes, as far as target choice needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::watcher::Event;
use sentinel_core::reconcile::targets::NodeFacts;
use sentinel_protocol::ids::NodeName;
use tokio::sync::watch;

/// The Nodes by name, at one time.
pub type Nodes = Arc<BTreeMap<NodeName, NodeFacts>>;

/// All Nodes, kept up to date by [`NodeWriter::apply`]. Clones share the cache.
#[derive(Debug, Clone)]
pub struct NodeCache {
    nodes: Arc<RwLock<Nodes>>,
    complete: watch::Sender<bool>,
}

/// The writing side: one per cache.
#[derive(Debug)]
pub struct NodeWriter {
    cache: NodeCache,
    listing: Option<BTreeMap<NodeName, NodeFacts>>,
}

impl NodeCache {
    /// An empty cache and its writer.
    pub fn new() -> (Self, NodeWriter) {
        let cache = Self { nodes: Arc::default(), complete: watch::Sender::new(false) };
        (cache.clone(), NodeWriter { cache, listing: None })
    }

    /// The Nodes as they are now.
    pub fn nodes(&self) -> Nodes {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all Nodes have been listed once. Earlier, targets cannot be chosen.
    pub async fn wait_until_complete(&self) {
        // The cache itself holds the sending side, so it is never closed.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }
}

impl NodeWriter {
    /// Applies a change; returns whether it changed anything that target choice reads.
    pub fn apply(&mut self, event: Event<(NodeName, NodeFacts)>) -> bool {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Event::InitApply((name, facts)) => {
                self.listing.get_or_insert_default().insert(name, facts);
                false
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let changed = self.change(|nodes| {
                    let changed = **nodes != listed;
                    *nodes = Arc::new(listed);
                    changed
                });
                self.cache.complete.send_replace(true);
                changed
            }
            Event::Apply((name, facts)) => self.change(|nodes| {
                let changed = nodes.get(&name) != Some(&facts);
                if changed {
                    Arc::make_mut(nodes).insert(name, facts);
                }
                changed
            }),
            Event::Delete((name, _)) => {
                self.change(|nodes| nodes.contains_key(&name) && Arc::make_mut(nodes).remove(&name).is_some())
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Nodes) -> bool) -> bool {
        let mut nodes = self.cache.nodes.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, pool: &str) -> (NodeName, NodeFacts) {
        let labels = BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        (NodeName::new(name).unwrap(), NodeFacts { labels })
    }

    #[test]
    fn a_new_list_replaces_all_once_it_is_complete() {
        let (cache, mut writer) = NodeCache::new();
        writer.apply(Event::Init);
        writer.apply(Event::InitApply(node("a", "web")));
        assert!(cache.nodes().is_empty());
        assert!(writer.apply(Event::InitDone));
        assert_eq!(cache.nodes().len(), 1);
        writer.apply(Event::Init);
        writer.apply(Event::InitApply(node("b", "web")));
        assert!(writer.apply(Event::InitDone));
        assert_eq!(cache.nodes().keys().map(NodeName::as_str).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn only_what_target_choice_reads_is_a_change() {
        let (_cache, mut writer) = NodeCache::new();
        writer.apply(Event::Init);
        writer.apply(Event::InitDone);
        assert!(writer.apply(Event::Apply(node("a", "web"))));
        assert!(!writer.apply(Event::Apply(node("a", "web"))));
        assert!(writer.apply(Event::Apply(node("a", "db"))));
        assert!(writer.apply(Event::Delete(node("a", "db"))));
        assert!(!writer.apply(Event::Delete(node("a", "db"))));
    }

    #[tokio::test]
    async fn waiters_continue_once_all_nodes_are_listed() {
        let (cache, mut writer) = NodeCache::new();
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { cache.wait_until_complete().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        writer.apply(Event::Init);
        writer.apply(Event::InitDone);
        waiting.await.unwrap();
    }
}
