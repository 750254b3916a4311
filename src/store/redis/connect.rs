//! Finds the primary and connects to it: alone, by its Sentinels, or as the owner of the namespace's slot in a Cluster.
//!
//! Everything of one namespace lies in one slot (its hash tag), so a Cluster is, to us, one primary that may change;
//! so it is with Sentinels. Whoever loses the connection asks anew who the primary is.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value,
    aio::{ConnectionLike as _, MultiplexedConnection, PubSub},
    io::tcp::TcpSettings,
};
use tokio::time::timeout;

use super::{
    address::{Address, Host, Tls, Way},
    script::Script,
};

/// To find out that there is nobody; a host that refuses says so at once.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long the kernel keeps sending to a host that acknowledges nothing.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5);
/// How many calls may be on their way at once; more wait, within their deadline.
const CALLS_MAX: usize = 4096;

/// A connection to a primary that knows the scripts.
pub(super) struct Primary {
    pub(super) host: Host,
    pub(super) connection: MultiplexedConnection,
    /// The digests of the scripts, as [`Script::ALL`] lists them.
    pub(super) digests: Vec<String>,
}

pub(super) async fn primary(address: &Address, meta_key: &str) -> RedisResult<Primary> {
    let host = find(address, meta_key).await?;
    let mut connection = open(address, &host, Role::Store).await?;
    prove(&mut connection).await?;
    let mut digests = Vec::with_capacity(Script::ALL.len());
    for script in Script::ALL {
        let digest: String =
            ask(&mut connection, redis::cmd("SCRIPT").arg("LOAD").arg(script.text())).await?;
        digests.push(digest);
    }
    Ok(Primary { host, connection, digests })
}

pub(super) async fn subscribe(address: &Address, host: &Host, channel: &str) -> RedisResult<PubSub> {
    let client = client(address, host, Credentials::Given)?;
    within(async {
        let mut pubsub = client.get_async_pubsub().await?;
        pubsub.subscribe(channel).await?;
        Ok(pubsub)
    })
    .await
}

/// Which host is the primary now, as far as anybody knows.
pub(super) async fn find(address: &Address, meta_key: &str) -> RedisResult<Host> {
    let mut last = RedisError::from((ErrorKind::InvalidClientConfig, "there is no host to ask"));
    for host in &address.hosts {
        let found = match &address.way {
            Way::Direct => return Ok(host.clone()),
            Way::Sentinel { master } => ask_sentinel(address, host, master).await,
            Way::Cluster => ask_node(address, host, meta_key).await,
        };
        match found {
            Ok(primary) => return Ok(primary),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_sentinel(address: &Address, sentinel: &Host, master: &str) -> RedisResult<Host> {
    let mut connection = open(address, sentinel, Role::Sentinel).await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(master);
    let known: Option<(String, u16)> = ask(&mut connection, &question).await?;
    let (name, port) = known.ok_or_else(|| {
        RedisError::from((ErrorKind::MasterNameNotFoundBySentinel, "it knows no such master"))
    })?;
    Ok(Host { name, port })
}

async fn ask_node(address: &Address, node: &Host, meta_key: &str) -> RedisResult<Host> {
    let mut connection = open(address, node, Role::Store).await?;
    let slot: i64 = ask(&mut connection, redis::cmd("CLUSTER").arg("KEYSLOT").arg(meta_key)).await?;
    let slots: Value = ask(&mut connection, redis::cmd("CLUSTER").arg("SLOTS")).await?;
    owner(&slots, slot, node)
        .ok_or_else(|| RedisError::from((ErrorKind::ClusterConnectionNotFound, "nobody has the slot")))
}

/// `[[from, to, [name, port, …], …], …]`; an empty name is that of the node that was asked.
fn owner(slots: &Value, slot: i64, asked: &Host) -> Option<Host> {
    let Value::Array(ranges) = slots else { return None };
    ranges.iter().find_map(|range| {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(from), Value::Int(to), Value::Array(primary), ..] = parts.as_slice() else {
            return None;
        };
        if !(*from..=*to).contains(&slot) {
            return None;
        }
        let name = match primary.first()? {
            Value::BulkString(name) if !name.is_empty() => String::from_utf8(name.clone()).ok()?,
            _ => asked.name.clone(),
        };
        let Value::Int(port) = primary.get(1)? else { return None };
        Some(Host { name, port: u16::try_from(*port).ok()? })
    })
}

/// A host that was a primary a moment ago may be none any more. Who may not ask is told by the first write.
async fn prove(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let role: Value = match ask(connection, &redis::cmd("ROLE")).await {
        Ok(role) => role,
        Err(error) if is_forbidden(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_primary = matches!(&role, Value::Array(parts) if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master"));
    is_primary
        .then_some(())
        .ok_or_else(|| RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), "it is no primary")))
}

pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || error.code() == Some("NOPERM")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Store,
    Sentinel,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Credentials {
    Given,
    /// A Sentinel mostly has none of its own.
    None,
}

async fn open(address: &Address, host: &Host, role: Role) -> RedisResult<MultiplexedConnection> {
    match role {
        Role::Store => connect(client(address, host, Credentials::Given)?).await,
        Role::Sentinel => {
            let mut connection = connect(client(address, host, Credentials::None)?).await?;
            let greeted: RedisResult<Value> = ask(&mut connection, &redis::cmd("PING")).await;
            match greeted {
                Err(error) if error.code() == Some("NOAUTH") && address.password.is_some() => {
                    connect(client(address, host, Credentials::Given)?).await
                }
                Err(error) => Err(error),
                Ok(_) => Ok(connection),
            }
        }
    }
}

async fn connect(client: Client) -> RedisResult<MultiplexedConnection> {
    // Calls have a deadline of their own, which counts what is not answered.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_MAX))
        .set_response_timeout(None)
        .set_pipeline_buffer_size(CALLS_MAX);
    within(client.get_multiplexed_async_connection_with_config(&config)).await
}

pub(super) fn client(address: &Address, host: &Host, credentials: Credentials) -> RedisResult<Client> {
    let (name, port) = (host.name.clone(), host.port);
    let endpoint = match address.tls {
        Tls::Off => ConnectionAddr::Tcp(name, port),
        Tls::On => ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None },
    };
    let mut settings = RedisConnectionInfo::default();
    if credentials == Credentials::Given {
        settings = settings.set_db(address.database.into());
        if let Some(user) = &address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &address.password {
            settings = settings.set_password(password);
        }
    }
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(UNACKNOWLEDGED_MAX);
    let server = endpoint.into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp);
    match &address.roots {
        None => Client::open(server),
        Some(roots) => {
            let root_cert = Some(roots.clone());
            Client::build_with_tls(server, TlsCertificates { client_tls: None, root_cert })
        }
    }
}

pub(super) async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &redis::Cmd,
) -> RedisResult<T> {
    let value = within(connection.req_packed_command(command)).await?;
    Ok(redis::from_redis_value(value.extract_error()?)?)
}

async fn within<T>(call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match timeout(CONNECT_MAX, call).await {
        Ok(came) => came,
        Err(_) => Err(RedisError::from((ErrorKind::Io, "it did not answer"))),
    }
}
