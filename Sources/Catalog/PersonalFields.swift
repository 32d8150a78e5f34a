import Base

/// Which parts of a topic's data speak of a person, and of whom. They stand in the log under a key of that person's, so
/// that destroying the key erases them everywhere at once.
package struct PersonalFields: Sendable {
    /// One part of the data: keys from its root. Where the way leads through a list, it goes into every element. No keys:
    /// the data as a whole.
    package struct Field: Sendable {
        package let keys: [JSONKey]

        package var description: String { ([CELProgram.documentName] + keys.map(\.text)).joined(separator: ".") }
        var path: [String] { keys.map(\.text) }

        /// `data`, `data.email`, `data.address.street`; nil for anything else.
        package init?(_ text: String) {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.first == CELProgram.documentName[...],
                parts.allSatisfy({ !$0.isEmpty && !$0.contains { "[]*'\" ".contains($0) } }),
                parts.count <= Limits.jsonDepth
            else { return nil }
            keys = parts.dropFirst().map { JSONKey(String($0)) }
        }

        /// Whether an expression that looks at `use` would see this field.
        func isSeen(by use: CELProgram.DataUse) -> Bool {
            if use.path.starts(with: path) { return true }
            return !use.isTest && path.starts(with: use.path)
        }
    }

    /// Whose data it is; the event's `subject` attribute where the declaration names nothing.
    package let subject: CELProgram?
    package let fields: [Field]

    init(_ reader: inout DefinitionReader) throws(CatalogError) {
        var fields: [Field] = []
        for item in try reader.list("fields") {
            guard let text = item.string, let field = Field(text) else {
                throw reader.failure(
                    "'\(item.string ?? item.text)' is no field: write data.email, or data for all of it")
            }
            if let other = fields.first(where: { $0.path.starts(with: field.path) || field.path.starts(with: $0.path) })
            {
                throw reader.failure("'\(field.description)' and '\(other.description)' overlap; name one of them")
            }
            fields.append(field)
        }
        guard !fields.isEmpty, fields.count <= PersonalFields.limit else {
            throw reader.failure("'fields' names 1 to \(PersonalFields.limit) parts of the data, such as data.email")
        }
        self.fields = fields
        subject = try reader.expression("subject")
        if let subject, let seen = seen(by: subject) {
            throw reader.failure(
                "'subject' reads '\(seen.description)', which is personal itself; name people by a number that says nothing of them"
            )
        }
        try reader.finish()
    }

    /// Fields of one topic.
    private static let limit = 100

    /// The first personal field that an expression over this topic's data would look at.
    package func seen(by program: CELProgram) -> Field? {
        for use in program.uses { if let field = fields.first(where: { $0.isSeen(by: use) }) { return field } }
        return nil
    }
}
