//! `backup`: from files to packs, a manifest and a snapshot.

pub mod ingest;
