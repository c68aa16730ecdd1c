//! Plans as graphs: steps, and what each must wait for.

use std::collections::{BTreeMap, BTreeSet};

/// When a step may begin, seen from one it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// As soon as the other has begun and nothing of before is in its way: it watches what the other brings about.
    Started,
    /// When the other has ended well.
    Done,
}

/// What a step must wait for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// The other step's id.
    pub step: String,
    /// When it is enough.
    pub when: When,
}

/// A step's place in the graph.
#[derive(Debug, Clone)]
pub struct Node<S> {
    /// Unique in the graph.
    pub id: String,
    /// All of them must hold before it begins.
    pub needs: BTreeSet<Need>,
    /// What is done.
    pub step: S,
}

/// A checked graph: ids are unique, needs exist, and there is no cycle. Nodes stand in an order in which each comes
/// after what it needs.
#[derive(Debug, Clone)]
pub struct Graph<S> {
    nodes: Vec<Node<S>>,
}

/// Why nodes do not make a graph. Plans come from validated profiles, so this is a defect of devstack.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two nodes have one id.
    #[error("the plan has two steps {0}")]
    Duplicate(String),
    /// A need names no node.
    #[error("step {step} needs {need}, which is not in the plan")]
    Missing {
        /// The step.
        step: String,
        /// What it needs.
        need: String,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

impl<S> Graph<S> {
    /// Checks and orders nodes; independent ones keep their order.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub fn new(nodes: Vec<Node<S>>) -> Result<Self, GraphError> {
        let mut ids = BTreeSet::new();
        for node in &nodes {
            if !ids.insert(node.id.as_str()) {
                return Err(GraphError::Duplicate(node.id.clone()));
            }
        }
        for node in &nodes {
            if let Some(need) = node.needs.iter().find(|need| !ids.contains(need.step.as_str())) {
                return Err(GraphError::Missing { step: node.id.clone(), need: need.step.clone() });
            }
        }
        let mut placed: BTreeSet<String> = BTreeSet::new();
        let mut rest = nodes;
        let mut ordered = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let free = rest.iter().position(|node| node.needs.iter().all(|need| placed.contains(&need.step)));
            let Some(free) = free else {
                return Err(GraphError::Cycle(cycle(&rest)));
            };
            let node = rest.remove(free);
            placed.insert(node.id.clone());
            ordered.push(node);
        }
        Ok(Self { nodes: ordered })
    }

    /// The nodes, each after what it needs.
    pub fn nodes(&self) -> &[Node<S>] {
        &self.nodes
    }

    /// Without a step that no other one needs.
    #[must_use]
    pub fn without(mut self, id: &str) -> Self {
        self.nodes.retain(|node| node.id != id);
        self
    }

    /// The nodes, each after what it needs.
    pub fn into_nodes(self) -> Vec<Node<S>> {
        self.nodes
    }
}

/// Follows needs among nodes none of which is free until one comes back.
fn cycle<S>(rest: &[Node<S>]) -> Vec<String> {
    let needs: BTreeMap<&str, &str> = rest
        .iter()
        .filter_map(|node| {
            let need = node.needs.iter().find(|need| rest.iter().any(|other| other.id == need.step))?;
            Some((node.id.as_str(), need.step.as_str()))
        })
        .collect();
    let mut path: Vec<&str> = Vec::new();
    let mut at = needs.keys().next().copied();
    while let Some(step) = at {
        if let Some(start) = path.iter().position(|seen| *seen == step) {
            path.drain(..start);
            path.push(step);
            break;
        }
        path.push(step);
        at = needs.get(step).copied();
    }
    path.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, needs: &[&str]) -> Node<()> {
        let needs = needs.iter().map(|step| Need { step: (*step).to_owned(), when: When::Done }).collect();
        Node { id: id.to_owned(), needs, step: () }
    }

    #[test]
    fn nodes_come_after_what_they_need() {
        let graph = Graph::new(vec![node("c", &["b", "a"]), node("b", &["a"]), node("a", &[])]).unwrap();
        let order: Vec<&str> = graph.nodes().iter().map(|node| node.id.as_str()).collect();
        assert_eq!(order, ["a", "b", "c"]);
    }

    #[test]
    fn defects_are_named() {
        let defect = |nodes| Graph::new(nodes).map(drop).unwrap_err();
        assert_eq!(defect(vec![node("a", &[]), node("a", &[])]), GraphError::Duplicate("a".to_owned()));
        assert_eq!(defect(vec![node("a", &["x"])]), GraphError::Missing { step: "a".to_owned(), need: "x".to_owned() });
        let cycle = defect(vec![node("a", &["b"]), node("b", &["c"]), node("c", &["b"])]);
        assert_eq!(cycle.to_string(), "steps wait for each other: b → c → b");
    }
}
