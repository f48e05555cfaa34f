//! Refuses a run that cannot work, before anything runs.

use crate::backend::Backend;
use crate::error::Misuse;
use crate::run::nesting;
use crate::run::token::Token;
use crate::settings::Settings;

/// The longest label that metrics systems take without trouble.
const LABEL_MAX: usize = 64;

/// Checks the settings and the token of a run for `DB`, and that no other run is around it.
pub(super) fn check<DB: Backend, T>(settings: &Settings, token: Option<&Token<T>>) -> Result<(), Misuse> {
    check_settings::<DB>(settings)?;
    if let Some(token) = token {
        token.check::<DB>()?;
    }
    nesting::refuse_nested(settings.label)
}

fn check_settings<DB: Backend>(settings: &Settings) -> Result<(), Misuse> {
    let Settings { label, .. } = *settings;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    if label.is_empty() || label.len() > LABEL_MAX || !label.bytes().all(legal) {
        return Err(Misuse::Label { label });
    }
    if settings.policy.attempts == 0 {
        return Err(Misuse::NoAttempts);
    }
    if settings.in_flight_max == Some(0) {
        return Err(Misuse::NothingInFlight);
    }
    if !settings.locals.are_possible() {
        return Err(Misuse::Setting);
    }
    match settings.isolation {
        Some(level) if !DB::supports(level) => Err(Misuse::Isolation { level, database: DB::NAME }),
        _ => Ok(()),
    }
}
