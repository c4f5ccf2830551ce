//! Tables: CSV, Parquet and Arrow IPC.

#[cfg(feature = "columns")]
pub(crate) mod arrays;
#[cfg(feature = "columns")]
mod batches;
#[cfg(feature = "columns")]
pub(crate) mod columns;
pub(crate) mod csv;
#[cfg(feature = "columns")]
mod ipc;
#[cfg(feature = "columns")]
mod lists;
#[cfg(feature = "columns")]
mod pages;
#[cfg(feature = "columns")]
pub(crate) mod parquet;
mod roles;
#[cfg(feature = "columns")]
mod values;
#[cfg(feature = "columns")]
mod windows;
