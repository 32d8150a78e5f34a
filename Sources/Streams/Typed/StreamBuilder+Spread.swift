/// Where the values of one key are, among the tasks of a topology.
@usableFromInline
enum Spread: Equatable {
    /// Each in the partition of its key, or, in a topology by key, in every task still.
    case whole
    /// In a topology by key: in the task of its key.
    case own
    /// Under another key than the one that decided the task; `kept` where all values of a key are in one task all the same.
    case moved(kept: Bool)
    /// In a topology by key: some are in every task, some in one.
    case mixed
}

extension StreamBuilder {
    @usableFromInline var isSharedByKey: Bool {
        if case .byKey = parallelism { true } else { false }
    }

    /// Whether an operator must leave out what other tasks have: the first on its way that keeps state or writes.
    @usableFromInline
    func selects(behind node: Int) -> Bool { isSharedByKey && spreads[node] == .whole }

    private static func keepsState(_ node: StreamNode) -> Bool {
        switch node.kind {
        case .process, .window, .table, .join: true
        case .source, .filter, .map, .flatMap, .branch, .merge, .key, .sink: false
        }
    }

    /// By node.
    private var spreads: [Spread] {
        nodes.reduce(into: []) { known, node in
            let parents = node.parents.map { known[$0] }
            var spread = parents.first ?? .whole
            if parents.contains(where: { $0 != spread }) { spread = Self.joined(parents) }
            if node.kind == .key, let keeps = node.isPartitioned {
                switch spread {
                case .whole where isSharedByKey, .mixed: break
                case .whole, .own: spread = .moved(kept: keeps)
                case .moved(let kept): spread = .moved(kept: kept && keeps)
                }
            }
            if Self.keepsState(node), isSharedByKey, spread == .whole { spread = .own }
            known.append(spread)
        }
    }

    private static func joined(_ parents: [Spread]) -> Spread {
        // What is own already is so by its key, and goes through the same choice once more.
        if parents.allSatisfy({ $0 == .whole || $0 == .own }) { return .whole }
        return parents.contains(.whole) || parents.contains(.mixed) ? .mixed : .moved(kept: false)
    }

    /// Operators whose state a key may find in another task than its values, or that some values reach in every task: they keep a
    /// topology from running in several.
    package var unpartitioned: [String] {
        let spreads = spreads
        return nodes.filter { node in
            node.parents.contains { parent in
                switch spreads[parent] {
                case .whole, .own, .moved(kept: true): false
                case .moved(kept: false): Self.keepsState(node)
                case .mixed: Self.keepsState(node) || node.kind == .sink
                }
            }
        }.map(\.name)
    }

    /// Outputs in which the events of one key may stand in several partitions, where the topology runs in several tasks.
    package var rekeyed: [String] {
        let spreads = spreads
        return nodes.filter { $0.kind == .sink && spreads[$0.number] == .moved(kept: false) }.compactMap(\.topic)
    }
}
