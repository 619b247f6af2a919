//! The calls of the checkout: reserve, commit, roll back and extend, their rules, their deadlines and their repeats.

mod batch;
mod buyers;
mod expiry;
mod identity;
mod parts;
mod repeats;
mod rules;
mod sale;
mod stock;
mod storm;
