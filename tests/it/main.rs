//! The integration tests, one binary: everything here runs the program, or whole parts of it, as its users do.

#[cfg(test)]
mod config;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod guarantees;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod language;
#[cfg(test)]
mod modes;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod records;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod shop;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod store;
#[cfg(test)]
mod world;
