import Base
import Catalog
import Streams

/// Which topology writes which topics, and who reads them: the workspace's own and every stream that the log knows.
package struct FoldGraph: Sendable {
    /// A topology as its definition says.
    struct Fold: Sendable {
        let name: String
        let inputs: [String]
        let outputs: [String]
        let side: SideTopics
        let tasks: Int
        /// Outputs whose keys may stand in any partition.
        let rekeyed: Set<String>
    }

    private(set) var folds: [String: Fold] = [:]

    package init() {}

    /// - Parameter definitions: those of streams; a later one takes the place of an earlier one of its name.
    init(_ definitions: [Definition]) {
        for definition in definitions where definition.kind == StreamTopology.kind { add(definition) }
    }

    mutating func add(_ definition: Definition) {
        func topics(_ kind: StreamNode.Kind) -> [String] {
            let nodes = definition.body["nodes"]?.array ?? []
            return nodes.filter { $0["kind"]?.string == kind.rawValue }.compactMap { $0["topic"]?.string }
        }
        folds[definition.name] = Fold(
            name: definition.name, inputs: topics(.source), outputs: topics(.sink),
            side: SideTopics(of: definition.name), tasks: Int(definition.body["tasks"]?.int ?? 1),
            rekeyed: Set((definition.body["rekeyed"]?.array ?? []).compactMap(\.string)))
    }

    /// The same with the workspace's topology in it.
    func with(_ workspace: WorkspaceTopology) -> FoldGraph {
        var graph = self
        graph.folds[WorkspaceTopology.name] = Fold(
            name: WorkspaceTopology.name, inputs: workspace.topology.inputs(derived: WorkspaceTopology.derived),
            outputs: WorkspaceTopology.derived.sorted(), side: .platform, tasks: 1, rekeyed: [])
        return graph
    }

    /// What streams write is theirs, also while no program brings them along.
    var streamTopics: [String] {
        folds.values.filter { $0.name != WorkspaceTopology.name }.flatMap {
            $0.outputs + $0.side.all + $0.side.own
        }
        .sorted()
    }

    /// Who writes a topic that others may read; the workspace's are known without its topology.
    func writer(of topic: String) -> Fold? {
        if WorkspaceTopology.derived.contains(topic) {
            return Fold(
                name: WorkspaceTopology.name, inputs: [], outputs: [topic], side: .platform, tasks: 1, rekeyed: [])
        }
        return folds.values.filter { $0.outputs.contains(topic) }.min { $0.name < $1.name }
    }

    /// The fold to whose side topics it belongs.
    func sides(_ topic: String) -> String? {
        if (SideTopics.platform.all + SideTopics.platform.own).contains(topic) { return WorkspaceTopology.name }
        return folds.values.filter { ($0.side.all + $0.side.own).contains(topic) }.map(\.name).min()
    }

    /// How a fold follows each of these topics that another one writes.
    func upstream(of topics: [String]) -> [String: Upstream] {
        var found: [String: Upstream] = [:]
        for topic in topics {
            guard let writer = writer(of: topic) else { continue }
            found[topic] = Upstream(progress: writer.side.progress, tasks: writer.tasks)
        }
        return found
    }

    /// Whether any fold of another name reads what this one writes.
    func isRead(_ name: String) -> Bool {
        folds.values.contains { fold in
            fold.name != name && fold.inputs.contains { writer(of: $0)?.name == name }
        }
    }

    /// A way from a fold through its writers back to itself: each would wait for the other for ever.
    func cycle() -> [String]? {
        var done: Set<String> = []
        var path: [String] = []
        func visit(_ name: String) -> [String]? {
            if let start = path.firstIndex(of: name) { return Array(path[start...]) + [name] }
            guard !done.contains(name), let fold = folds[name] else { return nil }
            path.append(name)
            defer {
                path.removeLast()
                done.insert(name)
            }
            for topic in fold.inputs {
                if let writer = writer(of: topic), let found = visit(writer.name) { return found }
            }
            return nil
        }
        for name in folds.keys.sorted() {
            if let found = visit(name) { return found }
        }
        return nil
    }

    func refuseCycles() throws {
        guard let cycle = cycle() else { return }
        throw FoldGraph.circle(cycle.joined(separator: " reads "))
    }

    static func circle(_ names: String) -> NodeError {
        NodeError(
            "derived-cycle",
            "these read what they write themselves: \(names); each would wait for the other, so put them into one topology"
        )
    }
}
