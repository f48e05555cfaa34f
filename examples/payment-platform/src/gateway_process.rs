//! The gateway as a process of its own, so that it can be killed as a machine kills: `kill -9`, no goodbye.
//!
//! The child reads its standard input and stops at its end. The parent holds the other side, so a parent that dies,
//! however it dies, takes the child along.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use service_shell::Settings;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::standard_input;
use crate::story::Failure;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A gateway that runs, or one that was killed and can be started again on the same address.
#[derive(Debug)]
pub(crate) struct GatewayProcess {
    child: Child,
    address: SocketAddr,
    environment: BTreeMap<String, String>,
    log: PathBuf,
}

impl GatewayProcess {
    /// Starts the gateway with these settings, and waits until it is ready to serve.
    ///
    /// # Errors
    /// When the process ends or is not ready in time: the message ends with the last lines of its log.
    pub(crate) async fn start(
        address: SocketAddr,
        environment: BTreeMap<String, String>,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let child = spawn(&environment, &log)?;
        let mut gateway = Self { child, address, environment, log };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }

    /// `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) async fn kill_9(&mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| Failure::setup("kill the gateway", error))
    }

    /// Starts it again after [`kill_9`](Self::kill_9): same address, same files.
    pub(crate) async fn start_again(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.environment, &self.log)?;
        self.wait_until_ready().await
    }

    /// Closes its standard input and waits until it has drained and ended.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        self.child.wait().await.map(drop).map_err(|error| Failure::setup("stop the gateway", error))
    }

    async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let ready = format!("{}/health/ready", self.url());
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) =
                self.child.try_wait().map_err(|error| Failure::setup("watch the gateway", error))?
            {
                return Err(Failure::Setup(format!(
                    "the gateway ended at once ({status}):\n{}",
                    self.last_lines()
                )));
            }
            match client.get(&ready).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err(Failure::Setup(format!(
            "the gateway was not ready within {READY_WITHIN:?}:\n{}",
            self.last_lines()
        )))
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// The other side: serves the gateway, configured by the environment, until the standard input ends.
///
/// # Errors
/// The failure that keeps the gateway from starting or serving.
pub(crate) async fn serve_alone() -> Result<(), Failure> {
    let settings = Settings::from_env("payment-gateway", 40003)?;
    let _telemetry = settings.telemetry.begin(settings.name)?;
    let listener = service_shell::bind(settings.address).await?;
    let (router, drain) = payment_gateway::start(settings).await?;
    let mut lines = standard_input::lines();
    let parent_is_gone = async move { while lines.recv().await.is_some() {} };
    let served = service_shell::serve(listener, router, parent_is_gone).await;
    drain.run().await;
    served.map_err(|error| Failure::setup("serve the gateway", error))
}

fn spawn(environment: &BTreeMap<String, String>, log: &PathBuf) -> Result<Child, Failure> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| Failure::setup("open the gateway's log", error))?;
    let errors = log.try_clone().map_err(|error| Failure::setup("open the gateway's log", error))?;
    let program = std::env::current_exe().map_err(|error| Failure::setup("find this program", error))?;
    Command::new(program)
        .arg("gateway")
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::setup("start the gateway", error))
}
