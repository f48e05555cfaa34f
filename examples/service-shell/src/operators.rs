//! Operators: the persons who run the platform, each with a token and roles of their own.
//!
//! Invariant: an operator's name comes from the token and from nowhere else, so an audit row names the person who sent
//! the request. Names are lower-case ASCII: two names that look the same are the same.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Problem, StartError, text_enum};

/// The variable that names the operators.
const VARIABLE: &str = "OPERATORS";

text_enum! {
    /// The right of an operator. Each operator may see.
    pub enum Role {
        /// Reads sagas and merchants.
        See = "see",
        /// Decides alone what one person may decide, and asks for what needs two.
        Act = "act",
        /// Approves withdrawals, and confirms what another operator asked for.
        Approve = "approve",
    }
}

/// An authenticated operator: the extractor of handlers behind [`Guarded::operators`](crate::Guarded::operators).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    name: Arc<str>,
    roles: Vec<Role>,
}

impl Operator {
    /// The person's name, as audit rows keep it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks a role.
    ///
    /// # Errors
    /// 403 that names the missing role.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        if role == Role::See || self.roles.contains(&role) {
            return Ok(());
        }
        let detail = format!("{} does not have the role {role}: ask an operator who has it", self.name);
        Err(Problem::new(StatusCode::FORBIDDEN, "role-needed", detail).with("role", role.as_str()))
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Operator, Problem> {
        parts.extensions.get().cloned().ok_or_else(Problem::unauthenticated)
    }
}

/// All operators of a service. Only the hashes of their tokens are kept.
#[derive(Clone)]
pub struct Operators(Arc<[(Operator, [u8; 32])]>);

impl Operators {
    /// Reads `name:role+role:hash`, separated by commas; the hash is the SHA-256 of the token, in hex.
    ///
    /// A token must be random, such as the output of `openssl rand -hex 32`: the hash is fast, which is safe for what
    /// cannot be guessed. `printf %s "$TOKEN" | sha256sum` prints its hash.
    ///
    /// # Errors
    /// [`StartError::Setting`] that says which entry is wrong.
    ///
    /// # Examples
    /// ```
    /// let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; // of `secret`
    /// let operators = service_shell::Operators::parse(&format!("ann:see+act:{hash}"))?;
    /// let headers = [(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer secret"))];
    /// assert_eq!(operators.authenticate(&headers.into_iter().collect())?.name(), "ann");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(text: &str) -> Result<Operators, StartError> {
        let mut operators: Vec<(Operator, [u8; 32])> = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let operator = parse_entry(entry)?;
            let same =
                |known: &(Operator, [u8; 32])| known.0.name == operator.0.name || known.1 == operator.1;
            if operators.iter().any(same) {
                let problem = format!("names {} or its token twice", operator.0.name);
                return Err(StartError::setting(VARIABLE, problem));
            }
            operators.push(operator);
        }
        if operators.is_empty() {
            return Err(StartError::setting(VARIABLE, "names nobody: write name:see+act+approve:SHA256"));
        }
        Ok(Operators(operators.into()))
    }

    /// The entry of one operator, as [`parse`](Self::parse) reads it.
    ///
    /// # Examples
    /// ```
    /// use service_shell::{Operators, Role};
    /// let entry = Operators::entry("ann", &[Role::See, Role::Act], "secret");
    /// assert!(entry.starts_with("ann:see+act:2bb80d53"), "{entry}");
    /// ```
    #[must_use]
    pub fn entry(name: &str, roles: &[Role], token: &str) -> String {
        let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let hash: String = hash(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{}:{hash}", roles.join("+"))
    }

    /// Three operators for services that run with no configuration and listen on loopback only: `ann`, `bob` and
    /// `cyd`, with all roles and tokens that are no secret, such as `loopback-only-ann`.
    #[must_use]
    pub fn for_this_machine() -> Operators {
        let known = ["ann", "bob", "cyd"].map(|name| {
            let operator = Operator { name: name.into(), roles: vec![Role::See, Role::Act, Role::Approve] };
            (operator, hash(Operators::token_for_this_machine(name).as_bytes()))
        });
        Operators(known.into())
    }

    /// The token of one of the operators of [`for_this_machine`](Self::for_this_machine).
    #[must_use]
    pub fn token_for_this_machine(name: &str) -> String {
        format!("loopback-only-{name}")
    }

    /// Returns true if this is the token of one of the persons.
    pub(crate) fn knows(&self, token: &str) -> bool {
        let hash = hash(token.as_bytes());
        self.0.iter().any(|(_, known)| bool::from(known.ct_eq(&hash)))
    }

    /// The setting, or the known operators on a loopback address.
    pub(crate) fn from_setting(text: Option<&str>, host: IpAddr) -> Result<Operators, StartError> {
        match text {
            Some(text) => Operators::parse(text),
            None if host.is_loopback() => Ok(Operators::for_this_machine()),
            None => Err(StartError::setting(
                VARIABLE,
                "must be set when HOST is not a loopback address: the default tokens are known to everybody",
            )),
        }
    }

    /// Finds the operator of `Authorization: Bearer …`. Each hash is compared, in constant time.
    ///
    /// # Errors
    /// 401 without a reason.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Operator, Problem> {
        let sent =
            headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let sent = hash(sent.unwrap_or_default());
        let mut found = None;
        for (operator, known) in self.0.iter() {
            if bool::from(known.ct_eq(&sent)) {
                found = Some(operator.clone());
            }
        }
        found.ok_or_else(Problem::unauthenticated)
    }
}

/// Lets a request in whose token is that of an operator with this role; the log names who acts.
pub(crate) async fn admit(
    operators: Operators,
    role: Role,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let operator = operators.authenticate(request.headers())?;
    operator.require(role)?;
    if role != Role::See {
        let (method, path) = (request.method(), request.uri().path());
        tracing::info!(operator = operator.name(), %method, path, "an operator acts");
    }
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(operator, _)| operator)).finish()
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn parse_entry(entry: &str) -> Result<(Operator, [u8; 32]), StartError> {
    let wrong = |problem: String| StartError::setting(VARIABLE, problem);
    let [name, roles, digest] = entry.split(':').collect::<Vec<_>>()[..] else {
        return Err(wrong("must be name:see+act+approve:SHA256, separated by commas".to_owned()));
    };
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(wrong("has a name that is not 1 to 64 of a-z, 0-9, `.`, `-` and `_`".to_owned()));
    }
    let roles = roles.split('+').map(str::parse).collect::<Result<Vec<Role>, _>>();
    let roles = roles.map_err(|error| wrong(format!("gives {name} a role that {error}")))?;
    let digest = hex(digest).ok_or_else(|| wrong(format!("has no SHA-256 in hex for {name}")))?;
    if digest == hash(b"") {
        return Err(wrong(format!("has the hash of an empty token for {name}")));
    }
    Ok((Operator { name: name.into(), roles }, digest))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`.
    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn bearer(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())])
    }

    #[test]
    fn a_token_finds_its_person_and_nothing_else_finds_one() {
        let operators = Operators::parse(&format!("ann:see+act:{HASH}")).unwrap();
        let ann = operators.authenticate(&bearer("Bearer secret")).unwrap();
        assert_eq!(ann.name(), "ann");
        assert!(ann.require(Role::See).is_ok() && ann.require(Role::Act).is_ok());
        assert_eq!(ann.require(Role::Approve).unwrap_err().status(), StatusCode::FORBIDDEN);
        for text in ["Bearer Secret", "secret", "Bearer ", "Basic secret", &format!("Bearer {HASH}")] {
            assert!(operators.authenticate(&bearer(text)).is_err(), "{text}");
        }
        assert!(operators.authenticate(&HeaderMap::new()).is_err());
    }

    #[test]
    fn an_entry_that_cannot_work_is_refused_with_what_is_wrong() {
        let refused = |text: &str| Operators::parse(text).unwrap_err().to_string();
        assert!(refused("").contains("names nobody"));
        assert!(refused("ann:see").contains("must be name:see+act+approve:SHA256"));
        assert!(refused(&format!("ann\u{200b}:see:{HASH}")).contains("has a name that is not"));
        assert!(refused(&format!("Ann:see:{HASH}")).contains("has a name that is not"));
        assert!(refused(&format!("\u{430}nn:see:{HASH}")).contains("has a name that is not"));
        assert!(refused(&format!("ann:admin:{HASH}")).contains("must be one of see, act, approve"));
        assert!(refused("ann:see:abc").contains("no SHA-256"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert!(refused(&format!("ann:see:{empty}")).contains("empty token"));
        assert!(refused(&format!("ann:see:{HASH},ann:act:{empty}")).contains("empty token"));
        assert!(refused(&format!("ann:see:{HASH},bob:act:{HASH}")).contains("twice"));
    }

    #[test]
    fn known_tokens_are_for_loopback_only() {
        let loopback = "127.0.0.1".parse().unwrap();
        let known = Operators::from_setting(None, loopback).unwrap();
        assert_eq!(known.authenticate(&bearer("Bearer loopback-only-bob")).unwrap().name(), "bob");
        assert!(Operators::from_setting(None, "0.0.0.0".parse().unwrap()).is_err());
    }
}
