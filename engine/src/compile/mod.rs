//! From a validated policy to the pages the kernel reads. Pure.
