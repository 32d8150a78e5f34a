/// A compiled expression. Variables are bound by slot; a document may be bound under one name and is then read in place.
package final class CELProgram: Sendable {
    package let source: String
    private let root: CELNode
    /// Set when the whole expression is a path into the bound document: the hot case.
    private let path: [JSONKey]?
    /// Every place of the document that the expression looks at.
    package let uses: [DataUse]

    /// A place of the document, and whether it is only asked for being there.
    package struct DataUse: Sendable {
        /// Keys from the root; indices into lists are left out.
        package let path: [String]
        /// `has(path.member)`: nothing but the member's presence is seen.
        package let isTest: Bool
    }

    /// The name under which a document's root is bound.
    package static let documentName = "data"

    /// - Parameter variables: names in slot order. `data` is the document and has no slot.
    package init(_ source: String, variables: [String] = []) throws(BaseError) {
        self.source = source
        let syntax = try CELParser.parse(source)
        var compiler = CELCompiler(source: source, variables: variables)
        root = try compiler.compile(syntax)
        path = CELCompiler.path(syntax)?.map { JSONKey($0) }
        var uses: [DataUse] = []
        CELCompiler.collect(syntax, into: &uses)
        self.uses = uses
    }

    /// Names of the variables that an expression uses, first use first.
    package static func variables(of source: String) throws(BaseError) -> [String] {
        var found: [String] = []
        CELCompiler.collect(try CELParser.parse(source), bound: [], into: &found)
        return found
    }

    package func evaluate(_ context: inout CELContext) throws(BaseError) -> CELValue {
        if let path, let document = context.document {
            guard let node = CELProgram.follow(path, document) else {
                throw BaseError("no-such-key", "the data has no '\(source)'")
            }
            return CELValue(document, node)
        }
        return try root.evaluate(&context)
    }

    /// A plain path gives nil for a missing key; anything else raises what went wrong.
    package func evaluateOptional(_ context: inout CELContext) throws(BaseError) -> CELValue? {
        if let path, let document = context.document {
            return CELProgram.follow(path, document).map { CELValue(document, $0) }
        }
        do {
            return try root.evaluate(&context)
        } catch {
            if error.code == "no-such-key" { return nil }
            throw error
        }
    }

    /// The number a path or expression gives; nil when it is missing or null.
    package func number(_ context: inout CELContext) throws(BaseError) -> Double? {
        if let path, let document = context.document {
            guard let node = CELProgram.follow(path, document) else { return nil }
            if document.kind(node) == .number { return document.double(node) }
            return CELValue(document, node).number
        }
        return try evaluateOptional(&context)?.number
    }

    package func label(_ context: inout CELContext) throws(BaseError) -> String? {
        if let path, let document = context.document {
            guard let node = CELProgram.follow(path, document) else { return nil }
            if document.kind(node) == .string { return document.string(node) }
        }
        return try evaluateOptional(&context)?.label
    }

    package func bool(_ context: inout CELContext) throws(BaseError) -> Bool {
        guard case .bool(let value) = try evaluate(&context) else {
            throw BaseError("bad-type", "the expression must give true or false: \(source)")
        }
        return value
    }

    private static func follow(_ path: [JSONKey], _ document: JSONDocument) -> Int? {
        var node = 0
        for key in path {
            guard let next = document.member(node, key) else { return nil }
            node = next
        }
        return node
    }

    package func instant(_ context: inout CELContext) throws(BaseError) -> Instant {
        switch try evaluate(&context) {
        case .timestamp(let value): return value
        case .string(let text):
            guard let value = Instant(text) else {
                throw BaseError("bad-type", "'\(text)' is no RFC 3339 time: \(source)")
            }
            return value
        default: throw BaseError("bad-type", "the expression must give a timestamp: \(source)")
        }
    }
}

/// What an evaluation sees.
package struct CELContext {
    package var slots: [CELValue]
    package var document: JSONDocument?

    package init(slots: [CELValue] = [], document: JSONDocument? = nil) {
        self.slots = slots
        self.document = document
    }
}

/// Turns the tree into nodes with bound slots.
struct CELCompiler {
    let source: String
    var variables: [String]

    static func path(_ syntax: CELSyntax) -> [String]? {
        switch syntax {
        case .identifier(CELProgram.documentName): []
        case .select(let inner, let field): path(inner).map { $0 + [field] }
        default: nil
        }
    }

    /// A path that may go through lists and be written with brackets; nil for what is only known at run time.
    private static func place(_ syntax: CELSyntax) -> [String]? {
        switch syntax {
        case .identifier(CELProgram.documentName): []
        case .select(let inner, let field): place(inner).map { $0 + [field] }
        case .index(let inner, .literal(.string(let key))): place(inner).map { $0 + [key] }
        case .index(let inner, .literal(.int)): place(inner)
        default: nil
        }
    }

    static func collect(_ syntax: CELSyntax, into found: inout [CELProgram.DataUse]) {
        if let place = place(syntax) { return found.append(CELProgram.DataUse(path: place, isTest: false)) }
        switch syntax {
        case .literal, .identifier: break
        case .test(let inner, _):
            if let place = place(inner) { return found.append(CELProgram.DataUse(path: place, isTest: true)) }
            collect(inner, into: &found)
        case .select(let inner, _): collect(inner, into: &found)
        case .index(let inner, let place):
            collect(inner, into: &found)
            collect(place, into: &found)
        case .call(_, let target, let list):
            if let target { collect(target, into: &found) }
            for item in list { collect(item, into: &found) }
        case .list(let items): for item in items { collect(item, into: &found) }
        case .map(let entries):
            for entry in entries {
                collect(entry.0, into: &found)
                collect(entry.1, into: &found)
            }
        case .loop(_, let range, _, let bodies):
            collect(range, into: &found)
            for body in bodies { collect(body, into: &found) }
        }
    }

    static func collect(_ syntax: CELSyntax, bound: [String], into found: inout [String]) {
        switch syntax {
        case .literal: break
        case .identifier(let name):
            if !bound.contains(name), !found.contains(name) { found.append(name) }
        case .select(let inner, _), .test(let inner, _): collect(inner, bound: bound, into: &found)
        case .index(let inner, let place):
            collect(inner, bound: bound, into: &found)
            collect(place, bound: bound, into: &found)
        case .call(_, let target, let list):
            if let target { collect(target, bound: bound, into: &found) }
            for item in list { collect(item, bound: bound, into: &found) }
        case .list(let items): for item in items { collect(item, bound: bound, into: &found) }
        case .map(let entries):
            for entry in entries {
                collect(entry.0, bound: bound, into: &found)
                collect(entry.1, bound: bound, into: &found)
            }
        case .loop(_, let range, let variable, let bodies):
            collect(range, bound: bound, into: &found)
            for body in bodies { collect(body, bound: bound + [variable], into: &found) }
        }
    }

    mutating func compile(_ syntax: CELSyntax) throws(BaseError) -> CELNode {
        if let path = CELCompiler.path(syntax) { return .path(path.map { JSONKey($0) }, source) }
        switch syntax {
        case .literal(let value): return .literal(value)
        case .identifier(let name):
            guard let slot = variables.lastIndex(of: name) else {
                let known = ([CELProgram.documentName] + variables).joined(separator: ", ")
                throw BaseError("unknown-variable", "'\(name)' is not known here (known: \(known)) in: \(source)")
            }
            return .slot(slot)
        case .select(let inner, let field): return .select(try compile(inner), field)
        case .test(let inner, let field):
            if let path = CELCompiler.path(inner) { return .hasPath((path + [field]).map { JSONKey($0) }) }
            return .test(try compile(inner), field)
        case .index(let inner, let place): return .index(try compile(inner), try compile(place))
        case .list(let items): return .list(try all(items))
        case .map(let entries):
            var compiled: [(CELNode, CELNode)] = []
            for entry in entries { compiled.append((try compile(entry.0), try compile(entry.1))) }
            return .map(compiled)
        case .loop(let name, let range, let variable, let bodies):
            let over = try compile(range)
            variables.append(variable)
            defer { variables.removeLast() }
            return .loop(name, over, variables.count - 1, try all(bodies))
        case .call(let name, let target, let list):
            let arguments = try all((target.map { [$0] } ?? []) + list)
            switch (name, arguments.count) {
            case ("&&", 2): return .and(arguments[0], arguments[1])
            case ("||", 2): return .or(arguments[0], arguments[1])
            case ("?:", 3): return .choose(arguments[0], arguments[1], arguments[2])
            default:
                guard let function = CELFunction.find(name, arguments.count, method: target != nil) else {
                    throw BaseError(
                        "unknown-function",
                        "there is no function '\(name)' with \(arguments.count) arguments in: \(source)")
                }
                // A constant call (a duration, say) is worked out once.
                if arguments.allSatisfy(\.isLiteral) {
                    var empty = CELContext()
                    if let value = try? CELNode.call(function, arguments).evaluate(&empty) { return .literal(value) }
                }
                return .call(function, arguments)
            }
        }
    }

    private mutating func all(_ list: [CELSyntax]) throws(BaseError) -> [CELNode] {
        var result: [CELNode] = []
        for item in list { result.append(try compile(item)) }
        return result
    }
}
