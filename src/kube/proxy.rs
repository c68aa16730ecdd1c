//! The proxy to an API server: what the kubeconfig names, as `kubectl` takes it, else what the environment does.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;

use crate::context::Vars;
use crate::ports::kube::KubeError;

/// What a connection can be led through.
const SPOKEN: [&str; 3] = ["http", "https", "socks5"];

/// The `proxy-url` of a context's cluster; of the current context when `context` is `None`.
pub(super) fn stated(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|one| one.name == name)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|one| one.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy to a server: the one that the kubeconfig states, whatever the environment says; else that of
/// `HTTPS_PROXY`, unless the server is on this machine or `NO_PROXY` has it.
///
/// # Errors
/// [`KubeError::Proxy`] where it is no URL, or one of a protocol that is not spoken. Its text is not told: it may hold
/// a password.
pub(super) fn to(server: &Uri, stated: Option<&str>, vars: &Vars) -> Result<Option<Uri>, KubeError> {
    let either = |upper: &str, lower: &str| vars.get(upper).or_else(|| vars.get(lower));
    let (from, url) = match (stated, either("HTTPS_PROXY", "https_proxy")) {
        (Some(url), _) => ("proxy-url", url),
        (None, Some(url)) => {
            let list = either("NO_PROXY", "no_proxy").unwrap_or_default();
            if is_here(server) || excepts(list, server) {
                return Ok(None);
            }
            ("HTTPS_PROXY", url)
        }
        (None, None) => return Ok(None),
    };
    let refuse = |reason: String| KubeError::Proxy { reason: format!("{from} {reason}") };
    // Names are left to the proxy with both.
    let url = url.replacen("socks5h://", "socks5://", 1);
    let url = if url.contains("://") { url } else { format!("http://{url}") };
    let url: Uri = url.parse().map_err(|error| refuse(format!("is no URL: {error}")))?;
    match url.scheme_str() {
        Some(scheme) if SPOKEN.contains(&scheme) => Ok(Some(url)),
        other => Err(refuse(format!("is of protocol {}, not of {}", other.unwrap_or_default(), SPOKEN.join(", ")))),
    }
}

fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// Whether a server is on this machine, which a proxy would take for its own.
fn is_here(server: &Uri) -> bool {
    let host = bare(server.host().unwrap_or_default());
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether a list as in `NO_PROXY` has a server: `*`, names with all below them, addresses, networks, each also with a
/// port.
fn excepts(list: &str, server: &Uri) -> bool {
    let port = server.port_u16().unwrap_or(443);
    let entries = || list.split(|letter: char| letter == ',' || letter.is_whitespace());
    let host = |entry: &str| {
        let host = match entry.rsplit_once(':') {
            // An address of IPv6 has colons of its own.
            Some((host, number)) if !host.contains(':') || host.ends_with(']') => {
                (number.parse() == Ok(port)).then_some(host)?
            }
            _ => entry,
        };
        Some(bare(host).trim_start_matches('*').to_owned())
    };
    let hosts: Vec<String> = entries().filter_map(host).collect();
    let matcher = Matcher::builder().all("http://proxy").no(hosts.join(",")).build();
    entries().any(|entry| entry == "*") || matcher.intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy:3128";

    fn proxy(server: &str, stated: Option<&str>, vars: &Vars) -> String {
        match to(&server.parse().unwrap(), stated, vars) {
            Ok(Some(url)) => url.to_string().trim_end_matches('/').to_owned(),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn servers_on_this_machine_need_no_proxy() {
        let vars = Vars::from([("HTTPS_PROXY", PROXY)]);
        for here in ["127.0.0.1:34567", "127.8.8.8", "[::1]:6443", "localhost:6443", "a.localhost", "0.0.0.0:6550"] {
            assert_eq!(proxy(&format!("https://{here}"), None, &vars), "none", "{here}");
        }
        for far in ["10.0.0.5:6443", "k8s.example.com", "[2001:db8::1]:6443", "localhost.example.com"] {
            assert_eq!(proxy(&format!("https://{far}"), None, &vars), PROXY, "{far}");
        }
        assert_eq!(proxy("https://k8s.example.com", None, &Vars::default()), "none");
    }

    #[test]
    fn no_proxy_is_read_as_kubectl_reads_it() {
        let (name, address) = ("https://k8s.example.com:6443", "https://10.1.2.3:6443");
        let table = [
            (name, "example.com", true),
            (name, ".example.com", true),
            (name, "*.example.com", true),
            (name, "K8S.example.com", true),
            (name, "localhost, example.com", true),
            (name, "localhost example.com", true),
            (name, "k8s.example.com:6443", true),
            (name, "k8s.example.com:443", false),
            (name, "ample.com", false),
            (name, "com.", false),
            (name, "10.0.0.0/8", false),
            (name, "*", true),
            (address, "*", true),
            (address, "10.1.2.3", true),
            (address, "10.1.2.3:6443", true),
            (address, "10.1.2.3:443", false),
            (address, "10.0.0.0/8,", true),
            (address, "10.2.0.0/16", false),
            (address, ",", false),
            ("https://[2001:db8::1]:6443", "2001:db8::1", true),
            ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", true),
            ("https://[2001:db8::1]:6443", "2001:db8::/32", true),
        ];
        for (server, list, excepted) in table {
            for names in [["HTTPS_PROXY", "NO_PROXY"], ["https_proxy", "no_proxy"]] {
                let vars = Vars::from([(names[0], PROXY), (names[1], list)]);
                assert_eq!(proxy(server, None, &vars), if excepted { "none" } else { PROXY }, "{server} {list}");
            }
        }
    }

    #[test]
    fn what_the_kubeconfig_states_holds_in_any_case() {
        let vars = Vars::from([("HTTPS_PROXY", PROXY), ("NO_PROXY", "*")]);
        // The other end of a tunnel has a loopback address, too.
        assert_eq!(proxy("https://127.0.0.1:6443", Some("socks5h://127.0.0.1:1080"), &vars), "socks5://127.0.0.1:1080");
        let text = "{clusters: [{name: c, cluster: {server: 'https://a', proxy-url: 'http://p:1'}}, \
                    {name: d, cluster: {server: 'https://a', proxy-url: ''}}], \
                    contexts: [{name: one, context: {cluster: c}}, {name: two, context: {cluster: d}}], \
                    current-context: one}";
        let kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        assert_eq!(stated(&kubeconfig, None).as_deref(), Some("http://p:1"));
        assert_eq!(stated(&kubeconfig, Some("two")), None);
        assert_eq!(stated(&kubeconfig, Some("three")), None);
    }

    #[test]
    fn what_cannot_be_used_is_told_without_its_password() {
        let told = |url: &str| proxy("https://k8s.example.com", None, &Vars::from([("HTTPS_PROXY", url)]));
        assert_eq!(told("proxy:3128"), PROXY);
        assert_eq!(told("anna:secret@proxy:3128"), "http://anna:secret@proxy:3128");
        let why = "the proxy to the cluster cannot be used: HTTPS_PROXY is ";
        assert_eq!(told("ftp://anna:secret@proxy"), format!("{why}of protocol ftp, not of http, https, socks5"));
        assert!(told("http://anna:secret@pro xy").starts_with(&format!("{why}no URL: ")));
        assert!(!told("http://anna:secret@pro xy").contains("secret"));
    }
}
