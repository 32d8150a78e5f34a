import Base

/// How data of earlier versions of a topic's events becomes what the newest version would have said. Steps are only ever
/// added: what a reader of version n sees of an event never changes.
package struct Upcasting: Sendable, Equatable {
    /// From one version to the next.
    private struct Step: Sendable, Equatable {
        /// Members that get a value of an expression over the data as it was before the step.
        let set: [(path: [String], value: CELProgram)]
        /// Members that go.
        let remove: [[String]]

        static func == (left: Step, right: Step) -> Bool {
            left.remove == right.remove && left.set.map(\.path) == right.set.map(\.path)
                && left.set.map(\.value.source) == right.set.map(\.value.source)
        }
    }

    private let steps: [Step]

    /// Versions of one topic, and members that one step touches.
    private static let limit = 100

    /// No earlier version is known.
    package init() { steps = [] }

    /// `upcasters: [{set: {delay: data.dep_delay * 60.0}, remove: [dep_delay]}, …]`, from version 1 on.
    init(_ reader: inout DefinitionReader, personal: PersonalFields?) throws(CatalogError) {
        var steps: [Step] = []
        for var item in try reader.readers("upcasters") {
            var set: [(path: [String], value: CELProgram)] = []
            let members = item.value("set")?.object ?? [:]
            for (name, value) in JSON.sorted(members) {
                guard let source = value.string else {
                    throw item.failure("'set: \(name)' is a CEL expression over 'data', as text", at: "set")
                }
                let program: CELProgram
                do {
                    program = try CELProgram(source)
                } catch {
                    throw item.failure("'set: \(name)': \(error.message)", at: "set", code: "bad-expression")
                }
                if let field = personal?.seen(by: program) {
                    throw item.failure(
                        "'set: \(name)' reads '\(field.description)', which is personal: it stands sealed and cannot be moved",
                        at: "set")
                }
                set.append((try Self.path(name, item, "set", personal), program))
            }
            var remove: [[String]] = []
            for name in try item.list("remove") {
                guard let name = name.string else { throw item.failure("'remove' is a list of members", at: "remove") }
                remove.append(try Self.path(name, item, "remove", personal))
            }
            guard (1...Self.limit).contains(set.count + remove.count) else {
                throw item.failure("an upcaster has 'set' or 'remove', of 1 to \(Self.limit) members together")
            }
            try item.finish()
            steps.append(Step(set: set, remove: remove))
        }
        guard steps.count <= Self.limit else {
            throw reader.failure("a topic has at most \(Self.limit) upcasters", at: "upcasters")
        }
        self.steps = steps
    }

    private static func path(
        _ name: String, _ reader: DefinitionReader, _ key: String, _ personal: PersonalFields?
    ) throws(CatalogError) -> [String] {
        let path = name.split(separator: ".", omittingEmptySubsequences: false).map { String($0) }
        guard path.allSatisfy({ !$0.isEmpty }), path.count <= Limits.jsonDepth else {
            throw reader.failure("'\(name)' is no member: write delay, or origin.code for one within another", at: key)
        }
        if let field = personal?.fields.first(where: { field in
            let own = field.keys.map(\.text)
            return own.starts(with: path) || path.starts(with: own)
        }) {
            throw reader.failure("'\(name)' and the personal '\(field.description)' overlap", at: key)
        }
        return path
    }

    /// The newest version; the first is 1.
    package var version: Int { steps.count + 1 }

    /// Whether this is another one with more steps behind it.
    package func continues(_ other: Upcasting) -> Bool { steps.starts(with: other.steps) }

    /// The version that an event says its data is of. What says nothing was written when there was none but the first.
    package static func version(_ text: String?) -> Int? {
        guard let text else { return 1 }
        guard let number = Int(text), number >= 1 else { return nil }
        return number
    }

    /// Data of one version as a later one would have said it. An expression that reads what is not there sets nothing.
    /// - Throws: `upcast-failed` where an expression fails.
    package func lift(_ data: JSON, from: Int, to: Int) throws(CatalogError) -> JSON {
        guard from < to, from >= 1, to <= version else { return data }
        let document = JSONDocument()
        var data = data
        for (number, step) in steps[(from - 1)..<(to - 1)].enumerated() {
            do throws(BaseError) {
                try document.parse(data.canonical)
                var lifted = data
                for (path, program) in step.set {
                    var context = CELContext(document: document)
                    guard let value = try program.evaluateOptional(&context) else { continue }
                    var writer = JSONWriter()
                    value.write(to: &writer)
                    lifted.set(path[...], try JSON(parsing: writer.bytes))
                }
                for path in step.remove { lifted.remove(path[...]) }
                data = lifted
            } catch {
                throw CatalogError(
                    "upcast-failed",
                    "data of version \(from + number) cannot be lifted to \(from + number + 1): \(error.message)")
            }
        }
        return data
    }
}

extension JSON {
    /// What is on the way and is no object gives place to one.
    fileprivate mutating func set(_ path: ArraySlice<String>, _ value: JSON) {
        guard let first = path.first else {
            self = value
            return
        }
        var members = object ?? [:]
        var inner = members[first] ?? .null
        inner.set(path.dropFirst(), value)
        members[first] = inner
        self = .object(members)
    }

    fileprivate mutating func remove(_ path: ArraySlice<String>) {
        guard let first = path.first, var members = object, var inner = members[first] else { return }
        if path.count == 1 {
            members[first] = nil
        } else {
            inner.remove(path.dropFirst())
            members[first] = inner
        }
        self = .object(members)
    }
}

/// The version of a topic's events at which a fold reads them, for good: what is added later is nothing to it.
package struct TopicReading: Sendable {
    package let upcasting: Upcasting
    package let version: Int

    package init(_ upcasting: Upcasting, version: Int) {
        self.upcasting = upcasting
        self.version = version
    }

    /// Makes a document that holds an event's data what the fold reads.
    /// - Throws: `newer-version`, `bad-version`, `upcast-failed`.
    package func lift(_ document: JSONDocument, stated: String?) throws(CatalogError) {
        guard let stated = Upcasting.version(stated) else {
            throw CatalogError("bad-version", "its data is of version '\(stated ?? "")', which is no number from 1 on")
        }
        guard stated != version else { return }
        guard stated < version else {
            throw CatalogError(
                "newer-version",
                "its data is of version \(stated), and this fold began when there was \(version): one that reads the newer has a name of its own"
            )
        }
        func parsed<Value>(_ body: () throws(BaseError) -> Value) throws(CatalogError) -> Value {
            do {
                return try body()
            } catch {
                throw CatalogError("bad-json", error.message)
            }
        }
        let data = try parsed { () throws(BaseError) in try document.value() }
        let lifted = try upcasting.lift(data, from: stated, to: version).canonical
        try parsed { () throws(BaseError) in try document.parse(lifted) }
    }
}
