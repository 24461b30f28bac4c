//! A repository.
