//! Where other machines reach a node: what it tells the registry.

use std::net::SocketAddr;

/// The address to register: the configured one, or the bound one where that names a machine.
/// `tier`: the section of the configuration. `tells_others`: see
/// [`Registry::tells_others`](super::Registry::tells_others).
///
/// # Errors
/// A sentence for the operator: the node is bound on all interfaces, and nothing is
/// configured.
pub fn advertised(
    tier: &str,
    configured: Option<&str>,
    bound: SocketAddr,
    tells_others: bool,
) -> Result<String, String> {
    match configured {
        Some(address) => Ok(address.to_owned()),
        None if !bound.ip().is_unspecified() => Ok(bound.to_string()),
        None if tells_others => Err(format!(
            "{tier}.advertise_grpc is not set: {tier}.grpc_addr = {bound} is bound on all interfaces, and the \
             registry must tell the others one host:port by which they reach this machine"
        )),
        // Nobody outside this process is told.
        None => Ok(format!("127.0.0.1:{}", bound.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_told_only_where_it_names_a_machine() {
        let bound = "127.0.0.1:7".parse().expect("an address");
        let everywhere = "0.0.0.0:7".parse().expect("an address");
        let told = |configured, bound, others| advertised("logic", configured, bound, others);
        assert_eq!(told(None, bound, true), Ok("127.0.0.1:7".to_owned()));
        assert_eq!(told(None, everywhere, false), Ok("127.0.0.1:7".to_owned()));
        assert_eq!(told(Some("logic.example:7"), everywhere, true), Ok("logic.example:7".to_owned()));
        let refused = told(None, everywhere, true).expect_err("refused");
        assert!(refused.contains("logic.advertise_grpc") && refused.contains("0.0.0.0:7"), "{refused}");
        let refused = told(None, "[::]:7".parse().expect("an address"), true).expect_err("refused");
        assert!(refused.contains("[::]:7"), "{refused}");
    }
}
