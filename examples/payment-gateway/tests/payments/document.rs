//! The document of the gateway, and what it answers to requests that follow it, or nearly.

use http::Method;
use service_shell::signature::SignedBy;
use service_shell::{Operators, random_text, sign_webhook};

use crate::setup;

#[tokio::test]
async fn every_answer_is_one_that_the_document_says() {
    let (_platform, merchant) = setup(&[("CHANNEL_WEBHOOK_SECRET", "secret-of-the-channel")]).await;
    let document = merchant.http.get(format!("{}/openapi.json", merchant.base)).send().await.unwrap();
    let listed = testkit::documented(&document.json().await.unwrap());
    assert_eq!((listed.len(), listed.iter().filter(|one| one.guarded).count()), (21, 16));
    let operator = Operators::token_for_this_machine("ann");
    let words: testkit::Words<'_> = &[
        ("currency", &["USD"]),
        ("payment_method", &["card_ok", "card_declined"]),
        ("channel", &["card"]),
        ("order_no", &["A-1", "A-2", "A-3", "A-4"]),
        ("notify_url", &["http://127.0.0.1:9/told"]),
    ];
    testkit::probe(&merchant.base, words, 25, |probe, call| {
        let method = Method::from_bytes(probe.method.as_bytes()).unwrap();
        let (now, body) = (chrono::Utc::now().timestamp(), probe.body.as_bytes());
        if probe.schemes.contains(&"operator".to_owned()) {
            return call.bearer_auth(&operator);
        }
        if probe.schemes.contains(&"webhook".to_owned()) {
            let signed = sign_webhook(b"secret-of-the-channel", now, body);
            return signed.into_iter().fold(call, |call, (name, value)| call.header(name, value));
        }
        let (key, secret, nonce) = (&merchant.api_key, merchant.secret.as_bytes(), random_text(24));
        let signed = SignedBy::sign(key, secret, &method, &probe.target, now, &nonce, body);
        signed.headers().into_iter().fold(call, |call, (name, value)| call.header(name, value))
    })
    .await;
}
