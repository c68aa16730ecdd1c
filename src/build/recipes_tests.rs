use super::*;
use crate::error::Advise as _;

fn recipes(files: &[(&str, &str, &str)]) -> Result<Recipes, BuildError> {
    let mut by_name: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for (name, path, content) in files {
        by_name.entry(name).or_default().insert((*path).to_owned(), content.as_bytes().to_vec());
    }
    let mut recipes = Recipes::default();
    for (name, files) in by_name {
        recipes.insert(name, files)?;
    }
    Ok(recipes)
}

const GO: &str = "apiVersion: devstack/v1\nkind: Recipe\nname: app\nversion: v1\nlicense: MIT\n\
                  go: {toolchain: '1.24', binaries: {app: example.org/app}}\nexpect: {seconds: 5, bytes: 1}\n";
const IMAGE: &str = "apiVersion: devstack/v1\nkind: Recipe\nname: app\nversion: v1\nlicense: MIT\n\
                     layers: {files: [{to: /app, binary: app/app}], config: {entrypoint: [/app]}}\n";

fn amd64() -> Platform {
    Platform::linux("amd64")
}

#[test]
fn the_built_in_recipes_are_valid_and_complete() {
    let recipes = Recipes::builtin().unwrap();
    let ids: Vec<Id> = recipes.all().map(|recipe| recipe.id.clone()).collect();
    recipes.closure(&ids).unwrap();
    for id in &ids {
        recipes.input(id, &amd64()).unwrap();
    }
    for name in ["node", "minio", "mc", "s3www-compat", "traefik", "metallb-controller", "metallb-speaker"] {
        assert!(ids.contains(&Id::image(name)), "{name}");
    }
}

#[test]
fn images_are_named_by_their_inputs_and_never_as_upstream() {
    let with = |go: &str, module: &str| {
        let recipes =
            recipes(&[("app", "recipe.yaml", go), ("app", "go.mod", module), ("app", "image.yaml", IMAGE)]).unwrap();
        recipes.reference("app", &amd64()).unwrap()
    };
    let first = with(GO, "module x");
    assert!(first.starts_with("devstack.local/app:v1-"), "{first}");
    assert_eq!(first, with(GO, "module x"));
    assert_ne!(first, with(GO, "module y"), "a file beside the recipe counts");
    assert_ne!(first, with(&GO.replace("'1.24'", "'1.25'"), "module x"), "the recipe of a binary counts");
    assert_eq!(first, with(&GO.replace("seconds: 5", "seconds: 7"), "module x"), "what is expected does not");
    for recipe in Recipes::builtin().unwrap().all().filter(|recipe| recipe.id.gives == Gives::Image) {
        let reference = Recipes::builtin().unwrap().reference(&recipe.id.name, &amd64()).unwrap();
        assert!(reference.starts_with("devstack.local/"), "{reference}");
    }
}

#[test]
fn needed_recipes_come_first() {
    let recipes = recipes(&[("app", "recipe.yaml", GO), ("app", "image.yaml", IMAGE)]).unwrap();
    let order: Vec<String> =
        recipes.closure(&[Id::image("app")]).unwrap().iter().map(|recipe| recipe.id.to_string()).collect();
    assert_eq!(order, ["app", "app (image)"]);
    let error = recipes.closure(&[Id::image("ap")]).unwrap_err();
    assert_eq!(error.to_string(), "there is no recipe ap (image)");
    assert_eq!(error.hint().unwrap(), "did you mean app?");
}

#[test]
fn contradictions_are_refused() {
    let cases = [
        (GO.replace("name: app", "name: other"), "its name is not that of its directory"),
        (GO.replace("kind: Recipe", "kind: Profile"), "apiVersion is not devstack/v1 or kind is not Recipe"),
        (GO.replace("{app: example.org/app}", "{../app: example.org/app}"), "binaries need plain names"),
        (GO.replace("toolchain", "toolchian"), "recipes/app/recipe.yaml:6:6: "),
        (IMAGE.to_owned(), "recipe.yaml is for go and debian, image.yaml for layers and node"),
    ];
    for (yaml, message) in cases {
        let error = recipes(&[("app", "recipe.yaml", &yaml)]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let image = IMAGE.replace("binary: app/app", "asset: start.sh");
    let error = recipes(&[("app", "image.yaml", &image)]).unwrap_err().to_string();
    assert_eq!(error, "the recipe app (image) is not valid: there is no files/start.sh");
}
