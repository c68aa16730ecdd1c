//! A port of this host's loopback address that leads to a port of a pod, as long as it is kept.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ports::Kube;

/// The way from a loopback port to a pod. It ends when this is dropped.
#[derive(Debug)]
pub struct Tunnel {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Tunnel {
    /// Listens on a free port; each connection gets a port-forward of its own. One that cannot be had closes the
    /// connection, which whoever dialled it sees.
    ///
    /// # Errors
    /// Where no port can be listened on.
    pub async fn open(kube: Arc<dyn Kube>, namespace: &str, pod: &str, port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (kube, namespace, pod) = (Arc::clone(&kube), namespace.clone(), pod.clone());
                tokio::spawn(async move {
                    if let Ok(mut far) = kube.port_forward(&namespace, &pod, port).await {
                        // Either side may break off at any time.
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn a_pod_that_cannot_be_reached_closes_the_connection_and_not_the_tunnel() {
        let tunnel = Tunnel::open(Arc::new(FakeKube::default()), "a", "pod", 80).await.unwrap();
        for _ in 0..2 {
            let mut stream = tokio::net::TcpStream::connect(tunnel.address()).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
        let address = tunnel.address();
        drop(tunnel);
        tokio::task::yield_now().await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}
