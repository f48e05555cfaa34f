//! Starts the services inside this process, each on its own listener and with its own database.
//!
//! Every port is bound before anything else is opened: a port in use is the first thing said, and nothing is left
//! behind.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use axum::Router;
use service_shell::{Drain, Settings, StartError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The services, with the ports of their documentation and the variable by which the others find them.
const SERVICES: [(Service, u16, &str); 5] = [
    (Service::Merchant, 40002, "MERCHANT_SERVICE_URL"),
    (Service::Gateway, 40003, "PAYMENT_GATEWAY_URL"),
    (Service::Order, 40004, "ORDER_SERVICE_URL"),
    (Service::Channel, 40005, "CHANNEL_ADAPTER_URL"),
    (Service::Withdrawal, 40014, "WITHDRAWAL_SERVICE_URL"),
];

/// One of the five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Merchant,
    Gateway,
    Order,
    Channel,
    Withdrawal,
}

impl Service {
    /// The name, as in its `-p` argument and its database's file name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Merchant => "merchant-service",
            Service::Gateway => "payment-gateway",
            Service::Order => "order-service",
            Service::Channel => "channel-adapter",
            Service::Withdrawal => "withdrawal-service",
        }
    }

    /// The service of this name.
    pub(crate) fn named(name: &str) -> Option<Service> {
        SERVICES.iter().map(|(service, ..)| *service).find(|service| service.name() == name)
    }

    /// Serves it alone, configured by the environment, as its own program does.
    pub(crate) async fn run(self) -> ExitCode {
        let port = SERVICES.iter().find(|(service, ..)| *service == self).map_or(0, |(_, port, _)| *port);
        let settings = Settings::from_env(self.name(), port);
        service_shell::run_with(settings, self.name(), async |settings| self.start(settings).await).await
    }

    async fn start(self, settings: Settings) -> Result<(Router, Drain), StartError> {
        match self {
            Service::Merchant => merchant_service::start(settings).await,
            Service::Gateway => payment_gateway::start(settings).await,
            Service::Order => order_service::start(settings).await,
            Service::Channel => channel_adapter::start(settings).await,
            Service::Withdrawal => withdrawal_service::start(settings).await,
        }
    }
}

/// Listeners for all five services, and the settings they share. Nothing runs yet.
#[derive(Debug)]
pub(crate) struct Berths {
    listeners: BTreeMap<Service, TcpListener>,
    variables: BTreeMap<String, String>,
    data: PathBuf,
}

impl Berths {
    /// Binds five free loopback ports. They lie below the range that systems use for outgoing connections, so that no
    /// connection takes the port of a service that was killed before it is started again.
    pub(crate) async fn on_free_ports(
        data: &Path,
        variables: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let first =
                15_000 + u16::try_from(RandomState::new().hash_one(tries) % 16_000).unwrap_or_default();
            match Self::on_ports_from(first, data, variables.clone()).await {
                Err(_) if tries < 100 => {}
                bound => return bound,
            }
        }
    }

    /// Binds five ports in a row.
    pub(crate) async fn on_ports_from(
        first: u16,
        data: &Path,
        variables: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        Self::bind(data, variables, [0, 1, 2, 3, 4].map(|place| first.saturating_add(place))).await
    }

    /// Binds the ports of the documentation.
    pub(crate) async fn on_usual_ports(
        data: &Path,
        variables: BTreeMap<String, String>,
    ) -> Result<Self, StartError> {
        Self::bind(data, variables, SERVICES.map(|(_, port, _)| port)).await
    }

    async fn bind(
        data: &Path,
        mut variables: BTreeMap<String, String>,
        ports: [u16; SERVICES.len()],
    ) -> Result<Self, StartError> {
        let mut listeners = BTreeMap::new();
        for ((service, _, variable), port) in SERVICES.into_iter().zip(ports) {
            let listener = service_shell::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
            let address = listener.local_addr().map_err(|error| StartError::other("the listener", error))?;
            variables.insert(variable.to_owned(), format!("http://{address}"));
            listeners.insert(service, listener);
            if service == Service::Gateway {
                let webhooks = format!("http://{address}/api/v1/webhooks/card");
                variables.insert("CHANNEL_WEBHOOK_URL".to_owned(), webhooks);
            }
        }
        variables.insert("DATA_DIR".to_owned(), data.display().to_string());
        Ok(Self { listeners, variables, data: data.to_owned() })
    }

    /// Gives up one port so that another process can take it. Its address and the environment to start it with.
    pub(crate) fn release(&mut self, service: Service) -> Option<(SocketAddr, BTreeMap<String, String>)> {
        let address = self.listeners.remove(&service)?.local_addr().ok()?;
        let mut environment = self.variables.clone();
        environment.insert("PORT".to_owned(), address.port().to_string());
        Some((address, environment))
    }

    /// Starts every service that still has its listener.
    pub(crate) async fn start(self) -> Result<Fleet, StartError> {
        let urls = SERVICES
            .iter()
            .filter_map(|(service, _, variable)| Some((*service, self.variables.get(*variable)?.clone())))
            .collect();
        let (stop, stopped) = watch::channel(());
        let mut fleet = Fleet { urls, data: self.data, stop, running: Vec::new() };
        for (service, listener) in self.listeners {
            let settings = Settings::from_vars(service.name(), 0, self.variables.clone())?;
            match service.start(settings).await {
                Ok((router, drain)) => {
                    fleet.running.push(tokio::spawn(live(listener, router, drain, stopped.clone())))
                }
                Err(refused) => {
                    fleet.stop().await;
                    return Err(refused);
                }
            }
        }
        Ok(fleet)
    }
}

/// The services that run in this process.
#[derive(Debug)]
pub(crate) struct Fleet {
    urls: BTreeMap<Service, String>,
    data: PathBuf,
    stop: watch::Sender<()>,
    running: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// `http://127.0.0.1:port` of a service, also of one that runs in another process.
    pub(crate) fn url(&self, service: Service) -> &str {
        self.urls.get(&service).map_or("", String::as_str)
    }

    /// The embedded database of a service.
    pub(crate) fn database(&self, service: Service) -> PathBuf {
        self.data.join(format!("{}.sqlite3", service.name()))
    }

    /// Stops listening, lets requests finish, drains and closes the databases.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        for service in self.running {
            // A service that panicked has already said so in its log; the others still stop in order.
            drop(service.await);
        }
    }
}

async fn live(listener: TcpListener, router: Router, drain: Drain, mut stopped: watch::Receiver<()>) {
    let shutdown = async move { while stopped.changed().await.is_ok() {} };
    if let Err(error) = service_shell::serve(listener, router, shutdown).await {
        tracing::error!(%error, "a service stopped serving");
    }
    drain.run().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn free_ports_lie_below_those_of_outgoing_connections() {
        let folder = testkit::temp_dir();
        let berths = Berths::on_free_ports(folder.path(), BTreeMap::new()).await.unwrap();
        let ports = berths.listeners.values().map(|listener| listener.local_addr().unwrap().port());
        assert!(
            ports.clone().all(|port| (15_000..32_000).contains(&port)),
            "{:?}",
            ports.collect::<Vec<_>>()
        );
    }
}
