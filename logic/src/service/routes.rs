//! Who is connected where: user → (gateway, incarnation), in the hot set alone. Nothing that
//! must not be lost follows a route, so a hot set that is down fails nobody.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::{GatewayRoute, HotSet};
use corecast_backends::store::Store;
use corecast_proto::logic::{RouteReply, RouteRequest};
use corecast_proto::refusal::Code;
use futures::StreamExt;

use super::Service;
use crate::error::Failure;

/// Users of one request at most.
const USERS_MAX: usize = 65_536;
/// Calls of the hot set under way at once for one request.
const CALLS: usize = 64;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Notes that these users are connected to this incarnation of a gateway.
    ///
    /// # Errors
    /// `TOO_LARGE`, `BAD_INPUT`.
    ///
    /// # Cancel safety
    /// A dropped call may have noted some of them.
    pub async fn set_route(&self, request: RouteRequest) -> Result<RouteReply, Failure> {
        let gateway = route(&request)?;
        futures::stream::iter(&request.user_ids)
            .for_each_concurrent(CALLS, |user_id| async {
                self.hot(self.hotset.set_route(user_id, &gateway)).await;
            })
            .await;
        Ok(RouteReply {})
    }

    /// Takes the note back, where this incarnation wrote it.
    ///
    /// # Errors
    /// `TOO_LARGE`, `BAD_INPUT`.
    ///
    /// # Cancel safety
    /// A dropped call may have removed some of them.
    pub async fn drop_route(&self, request: RouteRequest) -> Result<RouteReply, Failure> {
        let gateway = route(&request)?;
        futures::stream::iter(&request.user_ids)
            .for_each_concurrent(CALLS, |user_id| async {
                self.hot(self.hotset.drop_route(user_id, &gateway)).await;
            })
            .await;
        Ok(RouteReply {})
    }
}

fn route(request: &RouteRequest) -> Result<GatewayRoute, Failure> {
    if request.user_ids.len() > USERS_MAX {
        return Err(Code::TooLarge.with(format!("user_ids must hold at most {USERS_MAX}")).into());
    }
    if request.gateway_id.is_empty() {
        return Err(Code::BadInput.with("gateway_id must not be empty").into());
    }
    Ok(GatewayRoute { gateway_id: request.gateway_id.clone(), incarnation: request.incarnation })
}
