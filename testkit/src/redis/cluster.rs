//! A Redis Cluster of three masters: for keys that must live on one node, and scripts that may touch only one.

use super::server::Server;
use super::tls::TlsFiles;
use super::wire;
use crate::patience::{LIMIT, wait_for};

const SLOTS: u16 = 16_384;
const MASTERS: u16 = 3;
/// Slots of each master, in one run; the last has a little less.
const SHARE: u16 = SLOTS.div_ceil(MASTERS);

/// Three masters without replicas, each with a third of the slots in one run. It ends with the value.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Server>,
    urls: Vec<String>,
}

impl RedisCluster {
    pub(super) fn start(tls: Option<&TlsFiles>) -> RedisCluster {
        // A node that is gone for this long makes the cluster say so; short, so that tests of it are.
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes: Vec<Server> = (0..MASTERS).map(|_| Server::start(&options, tls)).collect();
        let cluster = RedisCluster { urls: nodes.iter().map(Server::url).collect(), nodes };
        cluster.assign_slots();
        cluster.introduce();
        let formed = wait_for(LIMIT, || cluster.nodes.iter().all(|node| is_whole(node.port())).then_some(()));
        assert!(formed.is_some(), "three Redis servers did not form a cluster within a minute");
        cluster
    }

    /// The URLs of the nodes, for a cluster client.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Ends the node at this place of [`RedisCluster::urls`] with `kill -9`.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn kill9(&mut self, node: usize) {
        self.nodes[node].kill9();
    }

    /// Freezes the node at this place of [`RedisCluster::urls`].
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn pause(&mut self, node: usize) {
        self.nodes[node].pause();
    }

    /// Ends [`RedisCluster::pause`].
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn resume(&mut self, node: usize) {
        self.nodes[node].resume();
    }

    /// Starts a node again and waits until the cluster is whole.
    ///
    /// # Panics
    ///
    /// If there is no such node, or the cluster does not become whole within a minute.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].restart();
        let whole = wait_for(LIMIT, || self.nodes.iter().all(|node| is_whole(node.port())).then_some(()));
        assert!(whole.is_some(), "the Redis cluster did not become whole within a minute");
    }

    fn assign_slots(&self) {
        for (node, index) in self.nodes.iter().zip(0..) {
            let mine = (0..SLOTS).filter(|slot| slot / SHARE == index).map(|slot| slot.to_string());
            let command: Vec<String> =
                ["CLUSTER".into(), "ADDSLOTS".into()].into_iter().chain(mine).collect();
            tell(node, &command);
        }
    }

    fn introduce(&self) {
        let Some((first, others)) = self.nodes.split_first() else { return };
        for (node, epoch) in self.nodes.iter().zip(1..) {
            tell(node, &["CLUSTER".into(), "SET-CONFIG-EPOCH".into(), format!("{epoch}")]);
        }
        for node in others {
            let port = node.peer_port().to_string();
            tell(first, &["CLUSTER".into(), "MEET".into(), "127.0.0.1".into(), port]);
        }
    }
}

fn is_whole(port: u16) -> bool {
    wire::ask(port, &["CLUSTER", "INFO"])
        .is_ok_and(|info| info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3"))
}

fn tell(node: &Server, command: &[String]) {
    if let Err(error) = wire::ask(node.port(), command) {
        panic!("Redis refused to form a cluster: {error}");
    }
}
