//! The guarded way out of a sandbox, as attempts meet it: the egress proxy, with a resolver that remembers.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use mooring_egress::{Config, Egress, HostName, HostPattern, Policy, Resolve, Rule};
use mooring_sandbox::EgressHandler;

use crate::outside::Outside;

/// The widest that a policy can be. An address of this host needs a rule of its own even then.
pub(crate) fn unrestricted() -> Arc<dyn EgressHandler> {
    guard(Config::new(Policy { unrestricted: true, ..Policy::default() }, Arc::new(|_| {})))
}

/// An allow-list: `allowed.test` is the server that may be reached, all below it are on both ports, and `inner.test` is a
/// name that leads to this host, where the operator has not said that it may.
pub(crate) fn allow_list(outside: &Outside) -> Arc<dyn EgressHandler> {
    let rule = |host: &str, ports: Vec<u16>| {
        let mut rule = Rule::host(pattern(host));
        rule.ports = ports;
        rule
    };
    let (allowed, forbidden) = (outside.allowed.port(), outside.port());
    let policy = Policy {
        rules: vec![
            rule("allowed.test", vec![allowed]),
            rule("*.allowed.test", vec![allowed, forbidden]),
            rule("inner.test", vec![forbidden]),
        ],
        private: vec![pattern("allowed.test"), pattern("*.allowed.test")],
        ..Policy::default()
    };
    let resolver = Arc::clone(&outside.names) as Arc<dyn Resolve>;
    guard(Config { resolver, ..Config::new(policy, Arc::new(|_| {})) })
}

fn pattern(host: &str) -> HostPattern {
    HostPattern::parse(host).unwrap()
}

fn guard(config: Config) -> Arc<dyn EgressHandler> {
    Arc::new(Guard(Egress::new(config).unwrap()))
}

#[derive(Debug)]
struct Guard(Egress);

impl EgressHandler for Guard {
    fn connection(&self, stream: mooring_sandbox::ByteStream) -> mooring_sandbox::BoxFuture<'_, ()> {
        Box::pin(self.0.serve(stream))
    }
}

/// A resolver that leads every name to this host, and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Names {
    asked: Mutex<Vec<String>>,
}

impl Names {
    pub(crate) fn look_up(&self, name: &str) -> IpAddr {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        Ipv4Addr::LOCALHOST.into()
    }

    /// What it was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Resolve for Names {
    fn resolve<'a>(
        &'a self,
        name: &'a HostName,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(vec![self.look_up(name.as_str())])))
    }
}
