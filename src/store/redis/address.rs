//! Where Redis is: the URL of `[store]`, read into what is to be connected to.
//!
//! `redis://[user[:password]@]host[:port][/database]`, `rediss://…` with TLS, and for both `+sentinel` (several
//! `host:port` with commas, the path is `/master-name[/database]`) and `+cluster` (several hosts, no path). Nothing
//! here connects, and no message repeats a password.

use percent_encoding::percent_decode_str;

use super::connect;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const HOSTS_MAX: usize = 32;

#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) hosts: Vec<Host>,
    pub(super) way: Way,
    pub(super) tls: Tls,
    /// PEM: whose certificates a server is believed by, instead of the machine's.
    pub(super) roots: Option<Vec<u8>>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// How the primary is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// It is the one host.
    Direct,
    /// The hosts are Sentinels, which know it by this name.
    Sentinel { master: String },
    /// The hosts are nodes of a Cluster, which know whose slot the namespace is.
    Cluster,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tls {
    Off,
    On,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    #[error(
        "begins with none of redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster:// and \
         rediss+cluster://"
    )]
    Scheme,
    #[error("names no host")]
    NoHost,
    #[error("names several hosts, which only +sentinel and +cluster can have")]
    SeveralHosts,
    #[error("names more than {HOSTS_MAX} hosts")]
    TooManyHosts,
    #[error("has a port that is no number between 1 and 65535")]
    Port,
    #[error("lacks the name of the master that the Sentinels watch: redis+sentinel://host:26379/NAME")]
    NoMaster,
    #[error("has a path that is no database number")]
    Database,
    #[error("names a database; a Cluster has only one")]
    DatabaseOfCluster,
    #[error("has a user or a password that is no UTF-8 when it is percent-decoded")]
    Credentials,
    #[error("has a part after ? or #, which means nothing here")]
    Rest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RootsError {
    #[error("is only for rediss://, rediss+sentinel:// and rediss+cluster://")]
    NoTls,
    #[error("holds no certificate")]
    None,
    #[error("holds a certificate that cannot be read")]
    Unreadable,
}

impl Address {
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (tls, way) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", way) => (Tls::Off, way),
            ("rediss", way) => (Tls::On, way),
            _ => return Err(AddressError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Rest);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(before, after)| (Some(before), after));
        let (user, password) = credentials.map_or(Ok((None, None)), read_credentials)?;
        let (way, database, port) = match way {
            "" if !scheme.contains('+') => (Way::Direct, path, PORT),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(AddressError::NoMaster);
                }
                (Way::Sentinel { master: master.to_owned() }, database, SENTINEL_PORT)
            }
            "cluster" if path.is_empty() => (Way::Cluster, "", PORT),
            "cluster" => return Err(AddressError::DatabaseOfCluster),
            _ => return Err(AddressError::Scheme),
        };
        let hosts: Vec<Host> =
            hosts.split(',').map(|host| read_host(host, port)).collect::<Result<_, _>>()?;
        if hosts.len() > HOSTS_MAX {
            return Err(AddressError::TooManyHosts);
        }
        if way == Way::Direct && hosts.len() > 1 {
            return Err(AddressError::SeveralHosts);
        }
        let database =
            if database.is_empty() { 0 } else { database.parse().map_err(|_| AddressError::Database)? };
        Ok(Self { hosts, way, tls, roots: None, user, password, database })
    }

    /// The same servers, believed only by what these certificates (PEM) have signed.
    ///
    /// # Errors
    /// Where there is no TLS, or nothing to believe by.
    pub fn trusting(mut self, roots: &str) -> Result<Self, RootsError> {
        if self.tls == Tls::Off {
            return Err(RootsError::NoTls);
        }
        if !roots.contains("-----BEGIN CERTIFICATE-----") {
            return Err(RootsError::None);
        }
        self.roots = Some(roots.as_bytes().to_vec());
        // Nothing is connected by this.
        let host = self.hosts.first().ok_or(RootsError::None)?;
        connect::client(&self, host, connect::Credentials::None).map_err(|_| RootsError::Unreadable)?;
        Ok(self)
    }
}

fn read_credentials(text: &str) -> Result<(Option<String>, Option<String>), AddressError> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text: &str| -> Result<Option<String>, AddressError> {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressError::Credentials)?;
        Ok((!text.is_empty()).then(|| text.into_owned()))
    };
    Ok((decoded(user)?, decoded(password)?))
}

fn read_host(text: &str, default: u16) -> Result<Host, AddressError> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, "")) => (name, None),
        Some((name, rest)) => (name, Some(rest.strip_prefix(':').ok_or(AddressError::Port)?)),
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if name.is_empty() {
        return Err(AddressError::NoHost);
    }
    let port = match port {
        None => default,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(AddressError::Port)?,
    };
    Ok(Host { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|error| panic!("{url} {error}"))
    }

    fn host(name: &str, port: u16) -> Host {
        Host { name: name.to_owned(), port }
    }

    #[test]
    fn one_host_with_and_without_everything() {
        let plain = read("redis://store");
        assert_eq!((plain.hosts, plain.database, plain.tls), (vec![host("store", 6379)], 0, Tls::Off));
        let full = read("rediss://gate:p%40ss%3Aword@10.0.0.1:7000/3");
        assert_eq!((full.hosts, full.database, full.tls), (vec![host("10.0.0.1", 7000)], 3, Tls::On));
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("gate"), Some("p@ss:word")));
        let six = read("redis://:secret@[::1]:7000");
        assert_eq!((six.hosts, six.user), (vec![host("::1", 7000)], None));
    }

    #[test]
    fn sentinels_know_a_master_by_name() {
        let address = read("redis+sentinel://one,two:7001/shop/2");
        assert_eq!(address.hosts, [host("one", 26379), host("two", 7001)]);
        assert_eq!(address.way, Way::Sentinel { master: "shop".to_owned() });
        assert_eq!(address.database, 2);
    }

    #[test]
    fn a_cluster_has_nodes_and_no_path() {
        let address = read("rediss+cluster://one,two");
        assert_eq!((address.way, address.tls, address.hosts.len()), (Way::Cluster, Tls::On, 2));
    }

    #[test]
    fn certificates_are_only_for_tls_and_have_to_be_some() {
        let trusting = |url: &str, roots: &str| read(url).trusting(roots).err();
        let (plain, tls) = ("redis://store", "rediss+cluster://one,two");
        let broken = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n";
        assert_eq!(trusting(plain, broken), Some(RootsError::NoTls));
        assert_eq!(trusting(tls, "a key, perhaps"), Some(RootsError::None));
        assert_eq!(trusting(tls, broken), Some(RootsError::Unreadable));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            ("localhost:6379", AddressError::Scheme),
            ("http://store", AddressError::Scheme),
            ("redis+://store", AddressError::Scheme),
            ("redis+sentinels://store/shop", AddressError::Scheme),
            ("redis://", AddressError::NoHost),
            ("redis://one,two", AddressError::SeveralHosts),
            ("redis://store:0", AddressError::Port),
            ("redis://store:port", AddressError::Port),
            ("redis://[::1]7000", AddressError::Port),
            ("redis://store/first", AddressError::Database),
            ("redis+sentinel://store", AddressError::NoMaster),
            ("redis+cluster://store/1", AddressError::DatabaseOfCluster),
            ("redis://%ff@store", AddressError::Credentials),
            ("redis://store?db=1", AddressError::Rest),
        ];
        for (url, error) in wrong {
            assert_eq!(Address::parse(url).err(), Some(error), "{url}");
        }
    }
}
