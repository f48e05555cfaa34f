//! The Redis store on single servers, a Cluster and Sentinels.

mod cluster;
mod faults;
mod permissions;
mod sentinel;
mod server;
mod tls;
