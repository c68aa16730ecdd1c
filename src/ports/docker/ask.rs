//! Questions to the engine that bollard has no options for: they are completed on their way.

use bollard::Docker;
use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// The first version of the API that knows the manifests of an image and saves one platform of it. An older engine whose
/// image store is containerd's cannot save an image of which it has one platform of several.
const SINCE: (usize, usize) = (1, 48);

/// A client that is told of an image's manifests, and which of them are there, where the engine can tell.
pub(super) fn for_manifests(client: Docker) -> Docker {
    completed(client, "manifests=1".to_owned())
}

/// A client whose archives hold one platform (`linux/amd64`) of an image, where the engine can do that.
pub(super) fn for_platform(client: Docker, platform: &str) -> Docker {
    match query(platform) {
        Some(query) => completed(client, query),
        None => client,
    }
}

fn completed(client: Docker, query: String) -> Docker {
    let version = client.client_version();
    if (version.major_version, version.minor_version) < SINCE {
        return client;
    }
    client.with_request_modifier(move |mut request| {
        if let Some(uri) = asking(request.uri(), &query) {
            *request.uri_mut() = uri;
        }
        request
    })
}

/// The platform in JSON, percent-encoded.
fn query(platform: &str) -> Option<String> {
    let (os, architecture) = platform.split_once('/')?;
    Some(format!("platform=%7B%22os%22%3A%22{os}%22%2C%22architecture%22%3A%22{architecture}%22%7D"))
}

fn asking(uri: &Uri, query: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{query}", uri.path()).parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_asked_for_in_json() {
        let uri: Uri = "unix://2f72756e/v1.48/images/r.example:5000/a/b:1/get".parse().unwrap();
        let asked = asking(&uri, &query("linux/arm64").unwrap()).unwrap();
        assert_eq!((asked.scheme_str(), asked.path()), (Some("unix"), uri.path()));
        let query = asked.query().unwrap();
        let value = url_decoded(query.strip_prefix("platform=").unwrap());
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        assert_eq!(value, serde_json::json!({"os": "linux", "architecture": "arm64"}));
    }

    fn url_decoded(text: &str) -> String {
        [("%7B", "{"), ("%7D", "}"), ("%22", "\""), ("%3A", ":"), ("%2C", ",")]
            .iter()
            .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
    }
}
