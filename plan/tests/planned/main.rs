//! Whole plans: golden cases (text in, text out), the facts of Gateway API, and the laws that every plan obeys.

#[cfg(test)]
mod facts;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod render;
#[cfg(test)]
mod views;
#[cfg(test)]
mod world;
