//! Cuts links of loopback: a private iptables chain that drops everything to and from some
//! ports. The chain is taken away when the value is dropped.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// The private chain.
pub struct Links {
    chain: String,
}

impl Links {
    /// Makes the chain; one that an earlier run with the same name left behind is removed.
    ///
    /// # Errors
    /// There is no iptables, or this user may not use it.
    pub fn new(name: &str) -> Result<Self> {
        let links = Self { chain: format!("corecast-{name}") };
        links.remove();
        links.run(&["-N", &links.chain])?;
        links.run(&["-I", "INPUT", "1", "-i", "lo", "-j", &links.chain])?;
        Ok(links)
    }

    /// Drops every packet to and from these ports.
    ///
    /// # Errors
    /// iptables refuses.
    pub fn cut(&self, ports: &[u16]) -> Result<()> {
        for port in ports {
            for end in ["--dport", "--sport"] {
                self.run(&["-A", &self.chain, "-p", "tcp", end, &port.to_string(), "-j", "DROP"])?;
            }
        }
        Ok(())
    }

    /// Nothing is dropped any more.
    ///
    /// # Errors
    /// iptables refuses.
    pub fn mend(&self) -> Result<()> {
        self.run(&["-F", &self.chain])
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = iptables(arguments).context("iptables")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("iptables {}: {words}", arguments.join(" "));
        }
        Ok(())
    }

    fn remove(&self) {
        // What is not there cannot be removed: the answers do not matter.
        for arguments in [
            &["-D", "INPUT", "-i", "lo", "-j", self.chain.as_str()][..],
            &["-F", self.chain.as_str()],
            &["-X", self.chain.as_str()],
        ] {
            let _ = iptables(arguments);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.remove();
    }
}

fn iptables(arguments: &[&str]) -> std::io::Result<std::process::Output> {
    Command::new("iptables").arg("-w").arg("5").args(arguments).output()
}
