//! `--serve`: the five services on known ports, and commands that work as printed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::json;
use service_shell::{Operators, Role, StartError, TelemetrySettings, random_text};

use crate::console::Console;
use crate::fleet::{Berths, Fleet, Service};
use crate::folder::Folder;
use crate::merchant_client::MerchantClient;
use crate::story::Failure;
use crate::{registration, standard_input};

/// Runs the platform until Ctrl-C, or for some seconds.
///
/// # Errors
/// A port in use, a folder that cannot be written, a service that refuses to start.
pub(crate) async fn serve(
    data: Option<PathBuf>,
    seconds: Option<u64>,
    ports: Option<u16>,
) -> Result<(), Failure> {
    let _telemetry = TelemetrySettings::from_env()?.begin("payment-platform")?;
    let folder = Folder::open(data)?;
    let mut variables = variables();
    let mut tokens = operators(&mut variables);
    let elsewhere = ["DATABASE_URL", "DB_HOST"].into_iter().find(|name| variables.contains_key(*name));
    tokens.push(("the services", variables["SERVICE_TOKEN"].clone()));
    let mut stopped = std::pin::pin!(service_shell::shutdown_signal());
    let fleet = tokio::select! {
        fleet = start(&folder, variables, ports) => match fleet {
            Ok(fleet) => fleet,
            Err(refused) => {
                folder.leave_if_empty();
                return Err(refused.into());
            }
        },
        () = &mut stopped => return Err(Failure::Interrupted),
    };
    let mut console = Console::new();
    console.line("The payment platform is running.");
    for service in
        [Service::Merchant, Service::Gateway, Service::Order, Service::Channel, Service::Withdrawal]
    {
        console.say(format!("{:<20} {}", service.name(), fleet.url(service)));
    }
    console.say(match elsewhere {
        Some(variable) => format!("the database is the one of {variable}"),
        None => format!("databases in {}", folder.path().display()),
    });
    for (whose, token) in tokens {
        console.say(format!("{:<20} {token}", format!("token of {whose}")));
    }
    let ended = async {
        tokio::select! {
            () = stopped => {}
            () = pass(seconds) => {}
        }
    };
    let served = talk(&mut console, &fleet, ended).await;
    fleet.stop().await;
    served
}

/// This process's own environment decides everything but the ports; tokens of its own keep strangers out.
fn variables() -> BTreeMap<String, String> {
    let readable =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut variables: BTreeMap<String, String> =
        readable.filter(|(name, text)| name != "PORT" && !text.is_empty()).collect();
    for name in ["SERVICE_TOKEN", "CHANNEL_WEBHOOK_SECRET", "NOTIFICATION_SECRET"] {
        variables.entry(name.to_owned()).or_insert_with(|| random_text(32));
    }
    variables
}

/// Two persons who may decide, with a token of this run for each, unless the environment names the operators.
fn operators(variables: &mut BTreeMap<String, String>) -> Vec<(&'static str, String)> {
    if variables.contains_key("OPERATORS") {
        return Vec::new();
    }
    let operators = vec![("ann", random_text(32)), ("bob", random_text(32))];
    let entries = operators.iter().map(|(name, token)| Operators::entry(name, Role::ALL, token));
    variables.insert("OPERATORS".to_owned(), entries.collect::<Vec<_>>().join(","));
    operators
}

async fn start(
    folder: &Folder,
    variables: BTreeMap<String, String>,
    ports: Option<u16>,
) -> Result<Fleet, StartError> {
    let berths = match ports {
        Some(first) => Berths::on_ports_from(first, folder.path(), variables).await?,
        None => Berths::on_usual_ports(folder.path(), variables).await?,
    };
    berths.start().await
}

async fn pass(seconds: Option<u64>) {
    match seconds {
        Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

async fn talk(console: &mut Console, fleet: &Fleet, ended: impl Future<Output = ()>) -> Result<(), Failure> {
    let merchant = registration::register(console, fleet, fleet.url(Service::Gateway)).await?;
    console.line("\n# for the clients in examples/clients");
    console.line(merchant.exports());
    commands(console, fleet, &merchant);
    let mut lines = standard_input::lines();
    let mut ended = std::pin::pin!(ended);
    let mut listening = true;
    loop {
        tokio::select! {
            () = &mut ended => return Ok(()),
            line = lines.recv(), if listening => match line {
                Some(_) => commands(console, fleet, &merchant),
                // Nobody can press Enter any more; the services go on.
                None => listening = false,
            },
        }
    }
}

/// Prints requests that are signed now. A signature is good for two minutes and for one use.
fn commands(console: &mut Console, fleet: &Fleet, merchant: &MerchantClient) {
    let gateway = fleet.url(Service::Gateway);
    let order_no = format!("order-{}", random_text(6));
    let body = json!({"order_no": order_no, "amount": 4990, "currency": "EUR", "payment_method": "card_ok"})
        .to_string();
    let key = random_text(16);
    console.line("\n# pay");
    console.line(post(gateway, merchant, &key, &body));
    console.line("# the same again: the same bytes, Idempotent-Replayed: true");
    console.line(post(gateway, merchant, &key, &body));
    console.line("# the merchant's payments");
    console.line(get(gateway, merchant, "/api/v1/payments"));
    console.line("# health of the gateway and what it depends on");
    console.line(format!("curl -s --noproxy '*' {gateway}/health"));
    console.line("\nEach signature is good for two minutes and one use. Enter signs new ones, Ctrl-C stops.");
}

fn post(gateway: &str, merchant: &MerchantClient, key: &str, body: &str) -> String {
    let path = "/api/v1/payments";
    let headers = quoted(&merchant.headers(&Method::POST, path, body.as_bytes()));
    format!(
        "curl -si --noproxy '*' {gateway}{path} -H 'Content-Type: application/json' -H 'Idempotency-Key: {key}'{headers} -d '{body}'"
    )
}

fn get(gateway: &str, merchant: &MerchantClient, path: &str) -> String {
    format!("curl -si --noproxy '*' {gateway}{path}{}", quoted(&merchant.headers(&Method::GET, path, b"")))
}

fn quoted(headers: &[(&'static str, String)]) -> String {
    headers.iter().map(|(name, value)| format!(" -H '{name}: {value}'")).collect()
}
