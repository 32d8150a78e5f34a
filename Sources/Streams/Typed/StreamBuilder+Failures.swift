/// What may throw, and when.
extension StreamBuilder {
    private static func hasEffect(_ node: StreamNode) -> Bool {
        switch node.kind {
        case .process, .window, .table, .join, .sink: true
        case .source, .filter, .map, .flatMap, .branch, .merge, .key: false
        }
    }

    /// Whether something may throw when an event has had an effect already: changed a state, set a timer, or been emitted. Only
    /// then effects must wait and states be kept as they were, which costs a copy of what changes.
    package var mayThrowBehindEffects: Bool {
        let above = nodes.reduce(into: [Set<Int>]()) { known, node in
            known.append(node.parents.reduce(into: [node.number]) { $0.formUnion(known[$1]) })
        }
        func topics(_ node: Int) -> Set<String> {
            Set(above[node].compactMap { nodes[$0].parents.isEmpty ? nodes[$0].topic : nil })
        }
        for thrower in nodes where thrower.mayThrow {
            let number = thrower.number
            // A processor that throws may have changed its state by then.
            if thrower.kind == .process { return true }
            // It is called for each of several values, and one before may have gone through.
            if above[number].contains(where: { $0 != number && nodes[$0].kind == .flatMap }) { return true }
            // The same where two ways of one event meet again.
            let meets = above[number].contains { node in
                let ways = nodes[node].parents.map(topics)
                return ways.indices.contains { way in ways[..<way].contains { !$0.isDisjoint(with: ways[way]) } }
            }
            if meets { return true }
            let events = topics(number)
            // What the same events reach on a way on which it is not met: that may come first.
            let reached = nodes.reduce(into: [Bool]()) { known, node in
                let begins = node.parents.isEmpty && node.topic.map(events.contains) ?? false
                known.append(node.number != number && (begins || node.parents.contains { known[$0] }))
            }
            if nodes.contains(where: { Self.hasEffect($0) && reached[$0.number] }) { return true }
        }
        return false
    }
}
