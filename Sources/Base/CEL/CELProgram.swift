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

    /// - Parameters:
    ///   - variables: names in slot order, qualified ones (`view.feature`) included. `data` is the document and has no slot.
    ///   - container: where names are looked for before they are looked for as they stand.
    ///   - isChecked: false leaves unknown names and functions to be errors of the evaluation that reaches them.
    package init(
        _ source: String, variables: [String] = [], container: String = "", isChecked: Bool = true
    ) throws(BaseError) {
        self.source = source
        let syntax = try CELParser.parse(source)
        var compiler = CELCompiler(
            source: source, container: container, variables: variables, isChecked: isChecked)
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

    /// The names that an expression begins with, each with the members that are selected of it (`a.b.c`), first use first.
    package static func names(in source: String) throws(BaseError) -> [[String]] {
        var found: [[String]] = []
        CELCompiler.collect(try CELParser.parse(source), bound: [], names: &found)
        return found
    }

    package func evaluate(_ context: inout CELContext) throws(BaseError) -> CELValue {
        if let path, let document = context.document {
            guard let node = CELProgram.follow(path, document) else {
                throw BaseError("no-such-key", "the data has no '\(source)'")
            }
            return CELValue(document, node)
        }
        context.rounds = 0
        return try root.evaluate(&context)
    }

    /// A plain path gives nil for a missing key; anything else raises what went wrong.
    package func evaluateOptional(_ context: inout CELContext) throws(BaseError) -> CELValue? {
        if let path, let document = context.document {
            return CELProgram.follow(path, document).map { CELValue(document, $0) }
        }
        context.rounds = 0
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
            return CELValue.label(document, node)
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
        case .timestamp(let value): return value.instant
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
    /// Elements that this evaluation went over.
    var rounds = 0

    package init(slots: [CELValue] = [], document: JSONDocument? = nil) {
        self.slots = slots
        self.document = document
    }

    /// Counts elements that are gone over; 64 bytes of a text are one.
    @inline(__always)
    mutating func spend(_ count: Int) throws(BaseError) {
        rounds += count
        guard rounds <= Limits.expressionRounds else {
            throw BaseError("too-long", "an expression may go over \(Limits.expressionRounds) elements in all")
        }
    }

    /// Makes room for a variable of a loop.
    mutating func make(_ slot: Int) {
        while slots.count <= slot { slots.append(.null) }
    }
}
