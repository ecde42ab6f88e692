//! Messages of PostgreSQL-side protocols.
