/// Turns the tree into nodes with bound slots.
struct CELCompiler {
    let source: String
    let container: String
    /// Variables of the caller, and behind them those of the loops that stand around.
    var variables: [String]
    let outer: Int
    let isChecked: Bool

    init(source: String, container: String, variables: [String], isChecked: Bool) {
        (self.source, self.container, self.variables, self.isChecked) = (source, container, variables, isChecked)
        outer = variables.count
    }

    /// The path of a plain selection from the document.
    static func path(_ syntax: CELSyntax) -> [String]? {
        switch syntax {
        case .identifier(CELProgram.documentName): []
        case .select(let inner, let field, false): path(inner).map { $0 + [field] }
        default: nil
        }
    }

    /// A path that may go through lists and be written with brackets; nil for what is only known at run time.
    private static func place(_ syntax: CELSyntax) -> [String]? {
        switch syntax {
        case .identifier(CELProgram.documentName): []
        case .select(let inner, let field, _): place(inner).map { $0 + [field] }
        case .index(let inner, .literal(.string(let key)), _): place(inner).map { $0 + [key] }
        case .index(let inner, .literal(.int), _): place(inner)
        default: nil
        }
    }

    static func collect(_ syntax: CELSyntax, into found: inout [CELProgram.DataUse]) {
        if let place = place(syntax) { return found.append(CELProgram.DataUse(path: place, isTest: false)) }
        if case .test(let inner, _, _) = syntax, let place = place(inner) {
            return found.append(CELProgram.DataUse(path: place, isTest: true))
        }
        for part in syntax.parts { collect(part.part, into: &found) }
    }

    static func collect(_ syntax: CELSyntax, bound: [String], into found: inout [String]) {
        if case .identifier(let name) = syntax {
            if !bound.contains(name), !found.contains(name) { found.append(name) }
        }
        for (part, names) in syntax.parts { collect(part, bound: bound + names, into: &found) }
    }

    static func collect(_ syntax: CELSyntax, bound: [String], names found: inout [[String]]) {
        if let chain = names(syntax) {
            guard !bound.contains(chain[0]), !types.contains(chain[0]), !types.contains(chain.joined(separator: ".")),
                !found.contains(chain)
            else { return }
            return found.append(chain)
        }
        if case .test(let inner, let field, _) = syntax, names(inner) != nil {
            return collect(.select(inner, field, optional: false), bound: bound, names: &found)
        }
        // `math.abs(...)` and `optional.of(...)` are functions.
        if case .call(_, .identifier(let space)?, let list) = syntax, ["math", "optional"].contains(space) {
            for part in list { collect(part, bound: bound, names: &found) }
            return
        }
        for (part, more) in syntax.parts { collect(part, bound: bound + more, names: &found) }
    }

    private static let types: Set<String> = [
        "int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "optional_type",
        "google.protobuf.Timestamp", "google.protobuf.Duration",
    ]

    /// The parts of `a.b.c` when nothing but names stands there.
    private static func names(_ syntax: CELSyntax) -> [String]? {
        switch syntax {
        case .identifier(let name): [name]
        case .select(let inner, let field, false): names(inner).map { $0 + [field] }
        default: nil
        }
    }

    private func isBound(_ name: String) -> Bool { variables[outer...].contains(name) }

    /// What a qualified name means: the longest that is a variable, looked for in the container and then outside of it
    /// (cel-spec langdef.md, "Name resolution"); nil when it begins with nothing known.
    private func resolve(_ names: [String]) -> CELNode? {
        var names = names
        let isAbsolute = names[0].hasPrefix(".")
        if isAbsolute { names[0].removeFirst() }
        var node: CELNode?
        var used = 0
        if !isAbsolute, let slot = variables[outer...].lastIndex(of: names[0]) {
            (node, used) = (.slot(slot), 1)
        } else {
            var scopes = [""]
            if !isAbsolute, !container.isEmpty {
                let parts = container.split(separator: ".")
                scopes = (0...parts.count).reversed().map { parts[..<$0].map { $0 + "." }.joined() }
            }
            search: for length in (1...names.count).reversed() {
                let name = names[..<length].joined(separator: ".")
                for scope in scopes {
                    if let slot = variables[..<outer].lastIndex(of: scope + name) {
                        (node, used) = (.slot(slot), length)
                        break search
                    }
                }
                if CELCompiler.types.contains(name) {
                    (node, used) = (.literal(.type(name)), length)
                    break search
                }
            }
        }
        guard var found = node else { return nil }
        for field in names[used...] { found = .select(found, field, optional: false) }
        return found
    }

    mutating func compile(_ syntax: CELSyntax, depth: Int = 0) throws(BaseError) -> CELNode {
        guard depth < Limits.expressionHeight else {
            throw BaseError(
                "bad-expression",
                "more than \(Limits.expressionHeight) operators stand on one another; put parentheses: \(source)")
        }
        if let path = CELCompiler.path(syntax), !isBound(CELProgram.documentName) {
            return .path(path.map { JSONKey($0) }, source)
        }
        let deeper = depth + 1
        switch syntax {
        case .literal(let value): return .literal(value)
        case .identifier(let name):
            if let node = resolve([name]) { return node }
            let known = ([CELProgram.documentName] + variables).joined(separator: ", ")
            return try unknown(
                BaseError("unknown-variable", "'\(name)' is not known here (known: \(known)) in: \(source)"))
        case .select(let inner, let field, let optional):
            if !optional, let names = CELCompiler.names(syntax), let node = resolve(names) { return node }
            return .select(try compile(inner, depth: deeper), field, optional: optional)
        case .test(let inner, let field, let optional):
            if let path = CELCompiler.path(inner), !isBound(CELProgram.documentName) {
                return .hasPath((path + [field]).map { JSONKey($0) })
            }
            // A variable with a qualified name is there when it is not null.
            if !optional, let names = CELCompiler.names(inner), case .slot(let slot)? = resolve(names + [field]) {
                return .call(.differs, [.slot(slot), .literal(.null)])
            }
            return .test(try compile(inner, depth: deeper), field, optional: optional)
        case .index(let inner, let place, let optional):
            return .index(try compile(inner, depth: deeper), try compile(place, depth: deeper), optional: optional)
        case .list(let items):
            var compiled: [(item: CELNode, optional: Bool)] = []
            for (item, optional) in items { compiled.append((try compile(item, depth: deeper), optional)) }
            return .list(compiled)
        case .map(let entries):
            var compiled: [(key: CELNode, value: CELNode, optional: Bool)] = []
            for (key, value, optional) in entries {
                compiled.append((try compile(key, depth: deeper), try compile(value, depth: deeper), optional))
            }
            return .map(compiled)
        case .logic(let isOr, let sides): return .logic(isOr: isOr, try all(sides, deeper))
        case .loop(let loop, let range, let names, let bodies):
            let over = try compile(range, depth: deeper)
            let slot = variables.count
            variables.append(contentsOf: names)
            defer { variables.removeLast(names.count) }
            return .loop(loop, over, slot: slot, variables: names.count, try all(bodies, deeper))
        case .bind(let inner, let name, let body, let isFlat):
            let over = try compile(inner, depth: deeper)
            variables.append(name)
            defer { variables.removeLast() }
            return .bind(over, slot: variables.count - 1, try compile(body, depth: deeper), isFlat: isFlat)
        case .call(let name, let target, let list): return try call(name, target, list, deeper)
        }
    }

    private mutating func call(
        _ name: String, _ target: CELSyntax?, _ list: [CELSyntax], _ depth: Int
    ) throws(BaseError) -> CELNode {
        if case .identifier(let space)? = target, ["optional", "math"].contains(space), !variables.contains(space),
            let function = CELFunction.find("\(space).\(name)", list.count, method: false)
        {
            return fold(function, try all(list, depth))
        }
        let arguments = try all((target.map { [$0] } ?? []) + list, depth)
        if name == "?:", arguments.count == 3 { return .choose(arguments[0], arguments[1], arguments[2]) }
        guard let function = CELFunction.find(name, arguments.count, method: target != nil) else {
            return try unknown(
                BaseError(
                    "unknown-function", "there is no function '\(name)' with \(arguments.count) arguments in: \(source)"
                ))
        }
        switch function {
        case .or, .orValue: return .otherwise(arguments[0], arguments[1], isValue: function == .orValue)
        case .matches:
            guard case .literal(.string(let pattern)) = arguments[1] else { return .call(function, arguments) }
            return .matches(arguments[0], try CELPattern(pattern))
        default: return fold(function, arguments)
        }
    }

    private func unknown(_ error: BaseError) throws(BaseError) -> CELNode {
        guard !isChecked else { throw error }
        return .failure(error)
    }

    /// A constant call (a duration, say) is worked out once.
    private func fold(_ function: CELFunction, _ arguments: [CELNode]) -> CELNode {
        let node = CELNode.call(function, arguments)
        guard arguments.allSatisfy(\.isLiteral) else { return node }
        var empty = CELContext()
        return (try? node.evaluate(&empty)).map { .literal($0) } ?? node
    }

    private mutating func all(_ list: [CELSyntax], _ depth: Int) throws(BaseError) -> [CELNode] {
        var result: [CELNode] = []
        for item in list { result.append(try compile(item, depth: depth)) }
        return result
    }
}
