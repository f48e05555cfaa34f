//! Requests that an OpenAPI document invites, or nearly: valid ones, valid ones with one fault, and garbage.

use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value, json};

use crate::random::{Rng, seed};

/// The seed of the probes, where none is given.
const USUAL_SEED: u64 = 20_261_201;

/// Texts for the fields and parameters of one name; one of them is chosen.
pub type Words<'a> = &'a [(&'a str, &'a [&'a str])];

/// One request, and the description that its answer has to follow.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The method, in upper case.
    pub method: String,
    /// The path and query.
    pub target: String,
    /// Headers; the credentials are added by the sender.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: String,
    /// True for a request without credentials.
    pub bare: bool,
    /// The schemes of credentials, one of which the document asks for.
    pub schemes: Vec<String>,
    /// The statuses that the document lists, and the schema of each body.
    answers: Map<String, Value>,
}

/// Reads the OpenAPI document of a running service, sends `count` probes to each operation, and holds each answer against
/// it. `prove` adds credentials to the probes that are not bare.
///
/// # Panics
/// When an answer is not documented, or none of them is a success: callers are tests.
pub async fn probe(
    base: &str,
    words: Words<'_>,
    count: usize,
    prove: impl Fn(&Probe, RequestBuilder) -> RequestBuilder,
) {
    let client = reqwest::Client::new();
    let document = send(client.get(format!("{base}/openapi.json"))).await.2;
    let document: Value = serde_json::from_slice(&document).unwrap_or_default();
    // The same probes in each run, unless a seed is given, as the long runs do: what a change is judged by must not
    // depend on luck.
    let chosen = if std::env::var_os("PROBITY_TEST_SEED").is_some() { seed() } else { USUAL_SEED };
    let mut rng = Rng::new(chosen);
    let (mut faults, mut succeeded) = (Vec::new(), 0);
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            for _ in 0..count {
                let probe =
                    Maker { document: &document, words, rng: &mut rng }.probe(method, path, operation);
                let method = Method::from_bytes(probe.method.as_bytes()).unwrap_or_default();
                let call = client.request(method, format!("{base}{}", probe.target)).body(probe.body.clone());
                let call = probe.headers.iter().fold(call, |call, (name, value)| call.header(name, value));
                let answer = send(if probe.bare { call } else { prove(&probe, call) }).await;
                succeeded += usize::from(answer.0 < 300 && path.starts_with("/api"));
                faults.extend(probe.fault(&answer));
            }
        }
    }
    assert!(faults.is_empty(), "{} answers are not documented, such as {:#?}", faults.len(), faults.first());
    assert!(succeeded > 0, "no probe was a success");
}

/// A status, a `Content-Type` and a body.
type Answer = (u16, String, Vec<u8>);

async fn send(call: RequestBuilder) -> Answer {
    let whole = async {
        let reply = call.send().await?;
        let kind = reply.headers().get("content-type").map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        let (status, kind) = (reply.status().as_u16(), kind.unwrap_or_default().into_owned());
        Ok::<Answer, reqwest::Error>((status, kind, reply.bytes().await?.to_vec()))
    };
    match whole.await {
        Ok(answer) => answer,
        Err(error) => panic!("no answer came: {error:?}"),
    }
}

impl Probe {
    /// The difference between an answer and the document. A status is listed, or says as a problem what the caller did
    /// wrong; a body has what its schema requires; and credentials are asked for where the document says.
    fn fault(&self, answer: &Answer) -> Option<String> {
        let (status, content_type, body) = answer;
        let problem = content_type.starts_with("application/problem+json");
        let listed = self.answers.get(&status.to_string());
        let refused = (400..500).contains(status) && *status != 405 && self.answers.contains_key("default");
        let nul = self.target.contains("%00");
        let open = self.schemes.is_empty();
        let fault = if (*status >= 400 && !problem) || (listed.is_none() && !refused) {
            "is not documented"
        } else if self.bare && !open && *status != 401 && !nul {
            "was given without credentials"
        } else if (!self.bare || open) && *status == 401 {
            "asks for credentials that the document does not name"
        } else {
            let schema =
                listed.map_or(&Value::Null, |answer| &answer["content"]["application/json"]["schema"]);
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if required.all(|name| body.get(name).is_some()) {
                return None;
            }
            "lacks a field"
        };
        let Probe { method, target, headers, body: sent, bare, .. } = self;
        let said = String::from_utf8_lossy(body);
        Some(format!("{method} {target} {headers:?} {sent:?} (bare: {bare}): {status} {fault}: {said}"))
    }
}

/// Texts that no field takes, or that a database or a parser may stumble over.
const GARBAGE: [&str; 8] =
    ["", " ", "\u{0}", "\u{202e}ü💶", "' OR 1=1 --", "-1", "99999999999999999999", "../../etc"];

struct Maker<'a> {
    document: &'a Value,
    words: Words<'a>,
    rng: &'a mut Rng,
}

impl Maker<'_> {
    fn probe(&mut self, method: &str, path: &str, operation: &Value) -> Probe {
        let mut target = path.to_owned();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, wanted) =
                (parameter["name"].as_str().unwrap_or_default(), parameter["required"] == json!(true));
            if !wanted && self.rng.between(0, 1) == 0 || self.one_in(12) && parameter["in"] != "path" {
                continue;
            }
            let value = self.parameter(name, &parameter["schema"]);
            match parameter["in"].as_str() {
                // An empty segment would be the path of another route.
                Some("path") if value.is_empty() => target = target.replace(&format!("{{{name}}}"), "x"),
                Some("path") => target = target.replace(&format!("{{{name}}}"), &encoded(&value)),
                Some("query") => query.push(format!("{name}={}", encoded(&value))),
                _ if value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    headers.push((name.to_owned(), value))
                }
                _ => {}
            }
        }
        if !query.is_empty() {
            target = format!("{target}?{}", query.join("&"));
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        let body = if body.is_null() { String::new() } else { self.body(body) };
        if !body.is_empty() && !self.one_in(20) {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let mut answers = operation["responses"].as_object().cloned().unwrap_or_default();
        for answer in answers.values_mut() {
            let schema = self.resolved(&answer["content"]["application/json"]["schema"]).clone();
            *answer = json!({"content": {"application/json": {"schema": schema}}});
        }
        let schemes = operation["security"].as_array().into_iter().flatten().filter_map(Value::as_object);
        let schemes = schemes.flat_map(|scheme| scheme.keys().cloned()).collect();
        let bare = self.one_in(8);
        Probe { method: method.to_uppercase(), target, headers, body, bare, schemes, answers }
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.rng.between(1, chances) == 1
    }

    fn parameter(&mut self, name: &str, schema: &Value) -> String {
        if self.one_in(6) {
            return (*self.rng.pick(&GARBAGE)).to_owned();
        }
        if name == "Idempotency-Key" {
            return format!("key-{}", self.rng.between(1, 1000));
        }
        match self.value(name, schema) {
            Value::String(text) if text.is_empty() => "x".to_owned(),
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// A body that fits, has one fault, or is garbage.
    fn body(&mut self, schema: &Value) -> String {
        let mut body = self.value("", schema);
        let names: Vec<String> =
            body.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
        if self.rng.between(0, 2) == 0 && !names.is_empty() {
            let name = self.rng.pick(&names).clone();
            match self.rng.between(0, 3) {
                0 => drop(body.as_object_mut().and_then(|fields| fields.remove(&name))),
                1 => body["unheard_of"] = json!(1),
                2 => body[&name] = json!(self.rng.pick(&GARBAGE)),
                _ => {
                    let odd = [Value::Null, json!(-1), json!(i64::MAX), json!(1.5), json!([]), json!({})];
                    body[&name] = self.rng.pick(&odd).clone();
                }
            }
        }
        let text = body.to_string();
        match self.rng.between(0, 11) {
            0 => text[..text.len() / 2].to_owned(),
            1 => format!("[{text}]"),
            _ => text,
        }
    }

    fn resolved<'v>(&self, schema: &'v Value) -> &'v Value
    where
        Self: 'v,
    {
        match schema["$ref"].as_str().and_then(|name| name.strip_prefix('#')) {
            Some(pointer) => self.document.pointer(pointer).unwrap_or(schema),
            None => schema,
        }
    }

    fn value(&mut self, name: &str, schema: &Value) -> Value {
        if let Some((_, words)) = self.words.iter().find(|(word, _)| *word == name) {
            return json!(self.rng.pick(words));
        }
        let schema = self.resolved(schema).clone();
        if let Some(choices) = schema["enum"].as_array() {
            return self.rng.pick(choices).clone();
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let choice = self.rng.pick(choices).clone();
            return self.value(name, &choice);
        }
        let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| self.rng.pick(kinds)).clone();
        match kind.as_str() {
            Some("integer" | "number") => json!(self.rng.between(1, 3)),
            Some("boolean") => json!(self.one_in(2)),
            Some("null") => Value::Null,
            Some("array") => json!([self.value(name, &schema["items"])]),
            Some("object") => {
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                let mut fields = Map::new();
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    if required.contains(&json!(name)) || self.one_in(2) {
                        fields.insert(name.clone(), self.value(name, schema));
                    }
                }
                Value::Object(fields)
            }
            _ if schema["format"] == "uuid" => json!("0195f000-0000-7000-8000-000000000000"),
            // Few texts, so that one request meets what another has made.
            _ => json!(format!("T{}", self.rng.between(1, 4))),
        }
    }
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
