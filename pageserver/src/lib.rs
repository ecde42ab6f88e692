//! Turns WAL into layers, and answers what any page was at any LSN.
//!
//! Finished so far: values, the layers that hold them, timelines over the bucket (attaching,
//! flushing, branching, reading), the rebuilding of pages through `redo`, and the turning of most
//! records into values. No WAL is fetched and nothing is served yet.
#![forbid(unsafe_code)]
#![expect(
    dead_code,
    reason = "the parts are tested, but no process ingests or reads yet"
)]

mod backup;
mod compact;
mod import;
mod ingest;
mod layer;
mod manifest;
mod rebuild;
mod timeline;
mod value;
mod view;
