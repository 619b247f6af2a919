//! Counters and rules of SKUs, as they are printed.

use inventory_sentinel_client::{SkuConfiguration, SkuRules, Stock};
use serde::Serialize;

use super::{instant, length, or_nothing, seconds};
use crate::{
    output::Row,
    table::{Column, shown},
};

/// The counters of a SKU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StockView {
    pub(crate) sku: String,
    pub(crate) available: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) supplied: i64,
    pub(crate) withdrawn: i64,
    pub(crate) version: i64,
    pub(crate) is_protected: bool,
    pub(crate) is_paused: bool,
}

impl From<&Stock> for StockView {
    fn from(stock: &Stock) -> Self {
        StockView {
            sku: stock.sku.clone(),
            available: stock.available,
            held: stock.held,
            sold: stock.sold,
            supplied: stock.supplied,
            withdrawn: stock.withdrawn,
            version: stock.version,
            is_protected: stock.is_protected,
            is_paused: stock.is_paused,
        }
    }
}

impl StockView {
    /// The units that SetStock sets.
    pub(crate) fn on_hand(&self) -> i64 {
        self.available.saturating_add(self.held)
    }
}

impl Row for StockView {
    const COLUMNS: &'static [Column] = &[
        Column::Left("sku"),
        Column::Right("available"),
        Column::Right("held"),
        Column::Right("sold"),
        Column::Right("supplied"),
        Column::Left("protected"),
        Column::Right("version"),
        Column::Left("paused"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            shown(&self.sku),
            self.available.to_string(),
            self.held.to_string(),
            self.sold.to_string(),
            self.supplied.to_string(),
            yes_no(self.is_protected),
            self.version.to_string(),
            yes_no(self.is_paused),
        ]
    }
}

/// The rules of a SKU; a rule that is not set is null.
#[derive(Debug, Serialize)]
pub(crate) struct RulesView {
    is_protected: bool,
    is_paused: bool,
    max_quantity: Option<i32>,
    max_ttl: Option<String>,
    buyer_limit: Option<i32>,
    opens_at: Option<String>,
    closes_at: Option<String>,
}

impl RulesView {
    /// In one line, for a table: those that are set.
    pub(super) fn shown(&self) -> String {
        let rules = [
            Some(if self.is_protected { "protected" } else { "not protected" }.to_owned()),
            self.is_paused.then(|| "paused".to_owned()),
            self.max_quantity.map(|units| format!("max quantity {units}")),
            self.max_ttl.as_ref().map(|ttl| format!("max ttl {ttl}")),
            self.buyer_limit.map(|units| format!("buyer limit {units}")),
            self.opens_at.as_ref().map(|at| format!("opens at {at}")),
            self.closes_at.as_ref().map(|at| format!("closes at {at}")),
        ];
        rules.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl From<&SkuRules> for RulesView {
    fn from(rules: &SkuRules) -> Self {
        RulesView {
            is_protected: rules.is_protected,
            is_paused: rules.is_paused,
            max_quantity: rules.max_quantity,
            max_ttl: rules.max_ttl.map(seconds),
            buyer_limit: rules.buyer_limit,
            opens_at: rules.opens_at.map(instant),
            closes_at: rules.closes_at.map(instant),
        }
    }
}

/// A SKU with all that is known of it, as GetSku and ListStock have it.
#[derive(Debug, Serialize)]
pub(crate) struct SkuView {
    stock: StockView,
    rules: RulesView,
    rules_version: i64,
    #[serde(skip)]
    details: Vec<(&'static str, String)>,
}

impl From<&SkuConfiguration> for SkuView {
    fn from(sku: &SkuConfiguration) -> Self {
        let SkuConfiguration { rules, rules_version, stock, .. } = sku;
        let details = vec![
            ("sku", shown(&stock.sku)),
            ("available", stock.available.to_string()),
            ("held", stock.held.to_string()),
            ("sold", stock.sold.to_string()),
            ("supplied", stock.supplied.to_string()),
            ("withdrawn", stock.withdrawn.to_string()),
            ("version", stock.version.to_string()),
            ("protected", yes_no(rules.is_protected)),
            ("paused", yes_no(rules.is_paused)),
            ("max quantity", or_nothing(rules.max_quantity)),
            ("max ttl", or_nothing(rules.max_ttl.map(length))),
            ("buyer limit", or_nothing(rules.buyer_limit)),
            ("opens at", or_nothing(rules.opens_at.map(instant))),
            ("closes at", or_nothing(rules.closes_at.map(instant))),
            ("rules version", rules_version.to_string()),
        ];
        SkuView { stock: stock.into(), rules: rules.into(), rules_version: *rules_version, details }
    }
}

impl SkuView {
    pub(crate) fn details(&self) -> &[(&'static str, String)] {
        &self.details
    }
}

impl Row for SkuView {
    const COLUMNS: &'static [Column] = StockView::COLUMNS;

    fn cells(&self) -> Vec<String> {
        self.stock.cells()
    }
}

pub(super) fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}
