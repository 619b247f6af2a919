//! The rights of a caller: roles, and the namespaces that each applies to. Data only.

use serde::Deserialize;

/// A part of the API that an identity may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The service `InventorySentinel`.
    Checkout,
    /// The service `InventoryEvents`.
    Events,
    /// The service `InventoryAdmin`.
    Operator,
    /// `/metrics` of the operator's port. It has no namespaces.
    Metrics,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Checkout, Role::Events, Role::Operator, Role::Metrics];

    /// The name in the policy file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Checkout => "checkout",
            Role::Events => "events",
            Role::Operator => "operator",
            Role::Metrics => "metrics",
        }
    }
}

/// A set of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    names: Vec<String>,
    prefixes: Vec<String>,
}

impl Scope {
    /// The scope of these patterns. A pattern is a name, or a prefix that ends with `*`. `*` alone is every namespace.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scope = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => scope.prefixes.push(prefix.to_owned()),
                None => scope.names.push(pattern.to_owned()),
            }
        }
        scope
    }

    /// The patterns: the names, then the prefixes, each with its `*`.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.names.iter().cloned().chain(self.prefixes.iter().map(|prefix| format!("{prefix}*")))
    }

    /// Whether the scope contains this namespace.
    pub fn contains(&self, namespace: &str) -> bool {
        self.names.iter().any(|name| name == namespace)
            || self.prefixes.iter().any(|prefix| namespace.starts_with(prefix.as_str()))
    }

    /// Whether the scope contains every namespace.
    pub fn is_everything(&self) -> bool {
        self.prefixes.iter().any(String::is_empty)
    }
}

/// One role of an identity, in some namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// The namespaces; empty for [`Role::Metrics`].
    pub scope: Scope,
}

/// A caller that the policy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name in the policy file.
    pub name: String,
    /// The grants. An identity without grants may call nothing but the health service.
    pub grants: Vec<Grant>,
}

impl Identity {
    /// Whether the identity has this role, in any namespace.
    pub fn has(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.role == role)
    }

    /// Whether the identity has this role in this namespace.
    pub fn has_in(&self, role: Role, namespace: &str) -> bool {
        self.grants.iter().any(|grant| grant.role == role && grant.scope.contains(namespace))
    }

    /// Whether the identity has this role in every namespace.
    pub fn has_everywhere(&self, role: Role) -> bool {
        self.grants.iter().any(|grant| grant.role == role && grant.scope.is_everything())
    }
}
