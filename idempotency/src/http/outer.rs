//! Layers around layers: a request whose record a layer further out holds is not claimed again.
//!
//! Invariant: a request is passed on without a claim only if its outer claim is proven to be in the same store: either
//! both layers were given the same store, or this layer's store knows the token of the outer claim.

use std::sync::Arc;
use std::time::Duration;

use http::Extensions;

use super::config::Shared;
use super::passage::Passage;
use super::problem::Problem;
use crate::core::claim::{Effects, Renewed};
use crate::core::identity::RecordId;
use crate::error::ErrorKind;
use crate::lease::handle::Lease;
use crate::store::manager::IdempotencyManager;

/// The claims that layers hold for a request, the outermost first, each with the store of its layer.
#[derive(Clone, Default)]
struct Claims(Vec<(Arc<dyn IdempotencyManager>, Lease)>);

/// Tells layers further in, and the handler, of a claim.
pub(crate) fn announce(shared: &Shared, extensions: &mut Extensions, lease: &Lease) {
    let claims = extensions.get_or_insert_default::<Claims>();
    claims.0.push((Arc::clone(&shared.store), lease.clone()));
    extensions.insert(lease.clone());
}

/// Tells whether a layer further out holds `record` in this layer's store. The handler then gets that lease.
///
/// Of several copies of a request one is passed on; the others ask the store, which says that their record is running.
///
/// Its terms and effects are those of the layer that claimed. If this one declares more effects, the record is marked
/// first: what the outer layer would take for proof that nothing happened is none here.
pub(crate) async fn holds(
    shared: &Shared,
    extensions: &mut Extensions,
    record: RecordId,
    came: Option<&Passage>,
) -> Result<bool, Problem> {
    let Some(Claims(claims)) = extensions.get::<Claims>().cloned() else { return Ok(false) };
    for (store, lease) in claims {
        if lease.record() != record || !is_same(shared, &store, &lease).await? {
            continue;
        }
        if !came.is_some_and(Passage::use_once) {
            return Ok(false);
        }
        if shared.config.policy.effects == Effects::Opaque && !lease.0.may_have_had_effect() {
            lease.effect_starting().await.map_err(|error| match error.kind() {
                ErrorKind::LeaseLost if !lease.0.is_marked() => Problem::InFlight(Duration::ZERO),
                _ => Problem::Unmarked,
            })?;
        }
        extensions.insert(lease);
        return Ok(true);
    }
    Ok(false)
}

/// Tells whether `store`, in which `lease` is held, is this layer's. Only the store with that very claim knows its token.
async fn is_same(
    shared: &Shared,
    store: &Arc<dyn IdempotencyManager>,
    lease: &Lease,
) -> Result<bool, Problem> {
    if Arc::ptr_eq(store, &shared.store) {
        return Ok(true);
    }
    let renewed = shared.config.manager.renew(&lease.0.holder, lease.0.terms.lease).await;
    match renewed {
        Ok(Renewed::Held(_)) => Ok(true),
        Ok(Renewed::LostTo(_) | Renewed::Settled(_) | Renewed::Missing) => Ok(false),
        Err(_) => Err(Problem::StoreUnavailable),
    }
}
