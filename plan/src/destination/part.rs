//! The parts of a traffic policy, each from the nearest level that says something of it.

use mesh_model::document::{
    destination_rule::{
        ConnectionPoolSpec, HealthCheckSpec, LoadBalancerSpec, OutlierDetectionSpec,
        PortPolicySpec, RetryBudgetSpec, TrafficPolicySpec,
    },
    span::Span,
};

/// Parts as written; what is `None` is nowhere said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Parts<'a> {
    pub(super) load_balancer: Option<&'a LoadBalancerSpec>,
    pub(super) connection_pool: Option<&'a ConnectionPoolSpec>,
    pub(super) outlier_detection: Option<&'a OutlierDetectionSpec>,
    pub(super) retry_budget: Option<&'a RetryBudgetSpec>,
    pub(super) panic_threshold: Option<u8>,
    pub(super) health_check: Option<&'a HealthCheckSpec>,
    pub(super) hedge_after: Option<Span>,
}

impl<'a> Parts<'a> {
    /// Of a policy, for one port.
    pub(super) fn of(policy: Option<&'a TrafficPolicySpec>, port: u16) -> Self {
        let Some(policy) = policy else {
            return Self::default();
        };
        let whole = Self {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
            panic_threshold: policy.panic_threshold,
            health_check: policy.health_check.as_ref(),
            hedge_after: policy.hedge_after,
        };
        let own = policy
            .port_level_settings
            .iter()
            .find(|one| one.port.number == port);
        own.map_or(whole, |own| whole.under(&Self::of_port(own)))
    }

    fn of_port(policy: &'a PortPolicySpec) -> Self {
        Self {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
            panic_threshold: policy.panic_threshold,
            health_check: policy.health_check.as_ref(),
            hedge_after: policy.hedge_after,
        }
    }

    /// What the nearer level says, and else this.
    pub(super) fn under(&self, nearer: &Self) -> Self {
        Self {
            load_balancer: nearer.load_balancer.or(self.load_balancer),
            connection_pool: nearer.connection_pool.or(self.connection_pool),
            outlier_detection: nearer.outlier_detection.or(self.outlier_detection),
            retry_budget: nearer.retry_budget.or(self.retry_budget),
            panic_threshold: nearer.panic_threshold.or(self.panic_threshold),
            health_check: nearer.health_check.or(self.health_check),
            hedge_after: nearer.hedge_after.or(self.hedge_after),
        }
    }
}
