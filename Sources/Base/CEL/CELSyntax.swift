/// The syntax tree of an expression.
indirect enum CELSyntax {
    case literal(CELValue)
    /// A leading dot stays: `.name` is looked for outside every container and loop.
    case identifier(String)
    case select(CELSyntax, String, optional: Bool)
    case test(CELSyntax, String, optional: Bool)
    case index(CELSyntax, CELSyntax, optional: Bool)
    case call(String, CELSyntax?, [CELSyntax])
    /// A chain of `&&` or `||`, however long.
    case logic(isOr: Bool, [CELSyntax])
    case list([(item: CELSyntax, optional: Bool)])
    case map([(key: CELSyntax, value: CELSyntax, optional: Bool)])
    /// A macro over a range with the names of its variables.
    case loop(CELLoop, CELSyntax, [String], [CELSyntax])
    /// optMap and optFlatMap: what stands in an optional under a name.
    case bind(CELSyntax, String, CELSyntax, isFlat: Bool)

    /// The parts in order, with the names that each sees besides what stands outside.
    var parts: [(part: CELSyntax, names: [String])] {
        switch self {
        case .literal, .identifier: []
        case .select(let inner, _, _), .test(let inner, _, _): [(inner, [])]
        case .index(let inner, let place, _): [(inner, []), (place, [])]
        case .call(_, let target, let list): ((target.map { [$0] } ?? []) + list).map { ($0, []) }
        case .logic(_, let sides): sides.map { ($0, []) }
        case .list(let items): items.map { ($0.item, []) }
        case .map(let entries): entries.flatMap { [($0.key, []), ($0.value, [])] }
        case .loop(_, let range, let names, let bodies): [(range, [])] + bodies.map { ($0, names) }
        case .bind(let inner, let name, let body, _): [(inner, []), (body, [name])]
        }
    }
}

/// The macros that go over a list or a map.
enum CELLoop: String, Sendable {
    case all, exists, existsOne, filter, map, transformList, transformMap

    /// The macro of that name and its number of variables; nil when these arguments are none of its.
    static func find(_ name: String, _ count: Int) -> (loop: CELLoop, variables: Int)? {
        switch (name, count) {
        case ("exists_one", 2), ("existsOne", 2): (.existsOne, 1)
        case ("exists_one", 3), ("existsOne", 3): (.existsOne, 2)
        case ("all", 2), ("exists", 2), ("filter", 2): CELLoop(rawValue: name).map { ($0, 1) }
        case ("all", 3), ("exists", 3): CELLoop(rawValue: name).map { ($0, 2) }
        case ("map", 2), ("map", 3): (.map, 1)
        case ("transformList", 3), ("transformList", 4): (.transformList, 2)
        case ("transformMap", 3), ("transformMap", 4): (.transformMap, 2)
        default: nil
        }
    }

    static let names: Set<String> = [
        "all", "exists", "exists_one", "existsOne", "filter", "map", "transformList", "transformMap",
    ]
}
