import Base
import Catalog
import Foundation
import Testing

@Suite struct CatalogTests {
    /// The required tests of the JSON-Schema-Test-Suite, keyword by keyword; groups that use an unsupported keyword must be
    /// refused, everything else must agree.
    @Test func schemasPassTheSuite() throws {
        guard let root = conformanceDirectory.map({ $0 + "/json-schema/tests/draft2020-12" }),
            FileManager.default.fileExists(atPath: root)
        else {
            print("➜ skipped: JSON Schema conformance needs HEADRACE_CONFORMANCE")
            return
        }
        var checked = 0
        var refused: [String: Int] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: root).sorted() where name.hasSuffix(".json") {
            let groups =
                try JSON(parsing: [UInt8](try #require(FileManager.default.contents(atPath: root + "/" + name)))).array
                ?? []
            for group in groups {
                let schema: JSONSchema
                do {
                    schema = try JSONSchema(try #require(group["schema"]))
                } catch let error as CatalogError {
                    #expect(
                        error.code == "unsupported-keyword", "\(name): \(group["description"]?.string ?? ""): \(error)")
                    refused[name, default: 0] += 1
                    continue
                }
                for test in group["tests"]?.array ?? [] {
                    let document = JSONDocument()
                    try document.parse(try #require(test["data"]).canonical)
                    let violation = schema.check(document)
                    checked += 1
                    #expect(
                        (violation == nil) == test["valid"]?.bool,
                        "\(name): \(group["description"]?.string ?? ""): \(test["description"]?.string ?? ""): \(violation?.description ?? "valid")"
                    )
                }
            }
        }
        print(
            "➜ JSON Schema: \(checked) checks, groups refused for a keyword: \(refused.values.reduce(0, +)) in \(refused.keys.sorted().joined(separator: " "))"
        )
        #expect(checked > 900)
        // Keywords that are supported may have no refused group of their own.
        for name in [
            "type", "enum", "const", "required", "properties", "items", "prefixItems", "minimum", "maximum",
            "minLength", "maxLength", "pattern", "multipleOf", "uniqueItems", "contains", "not", "allOf", "anyOf",
            "oneOf", "if-then-else", "additionalProperties", "patternProperties", "propertyNames", "dependentRequired",
            "dependentSchemas", "minContains", "maxContains", "minItems", "maxItems", "minProperties", "maxProperties",
            "exclusiveMinimum", "exclusiveMaximum", "boolean_schema",
        ] {
            #expect((refused[name + ".json"] ?? 0) <= 2, "\(name)")
        }
    }

    @Test func violationsNameTheirPlace() throws {
        let schema = try JSONSchema(
            try JSON(
                parsing: [UInt8](
                    #"{"type":"object","properties":{"a":{"type":"array","items":{"type":"number","minimum":3}}}}"#.utf8
                )))
        let violation = schema.check(try JSONDocument(#"{"a":[5,4,1]}"#))
        #expect(violation?.path == "/a/2" && violation?.message == "must be at least 3.0")
    }

    @Test(arguments: [
        ("kind: Topic\nname: t\npartitons: 2", "t.yaml:3: Topic/t: unknown key 'partitons'; known here"),
        ("kind: Topic\nname: t\npartitions: many", "t.yaml:3: Topic/t: 'partitions' must be a whole number"),
        ("name: t", "t.yaml:1: 'kind' or 'name' is missing"),
        ("kind: Topic\nname: t\nschema: {type: strin}", "names no type"),
        ("kind: Topic\nname: t\nschema: {unevaluatedItems: false}", "'unevaluatedItems' is not supported"),
        ("kind: Topic\nname: t\npersonal: {subject: data.c}", "'fields' names 1 to 100"),
        ("kind: Topic\nname: t\npersonal: {fields: [email]}", "'email' is no field"),
        ("kind: Topic\nname: t\npersonal: {fields: ['data.a[0]']}", "'data.a[0]' is no field"),
        ("kind: Topic\nname: t\npersonal: {fields: [data.a, data.a.b]}", "overlap"),
        ("kind: Topic\nname: t\npersonal: {subject: data.a, fields: [data]}", "which is personal itself"),
    ]) func mistakesAreNamed(text: String, expected: String) {
        var message = ""
        do {
            for definition in try Workspace.parse(text, file: "t.yaml") { _ = try TopicDefinition(definition) }
        } catch {
            message = "\(error)"
        }
        #expect(message.contains(expected), "\(message)")
    }

    /// An expression that would see a personal field is told from one that only passes it by.
    @Test(
        arguments: [
            ("data.email", "data.email"), ("size(data['email']) > 3", "data.email"),
            ("data.email.domain", "data.email"),
            ("data", "data.email"), ("data.items[0].name", "data.items.name"), ("data.items", "data.items.name"),
            ("data.items.exists(i, i.name == 'x')", "data.items.name"), ("data[data.key]", "data.email"),
            ("has(data.email.domain)", "data.email"), ("{'a': [data.email]}", "data.email"),
            ("has(data.email)", nil), ("data.emails + data.other", nil), ("data.items[0].price", nil),
            ("data.customer == 'email' ? 1 : 2", nil), ("has(data.items)", nil),
        ] as [(String, String?)])
    func personalFieldsAreSeen(expression: String, seen: String?) throws {
        let text = "kind: Topic\nname: t\npersonal: {subject: data.customer, fields: [data.email, data.items.name]}\n"
        let topic = try TopicDefinition(try #require(try Workspace.parse(text, file: "t").first))
        let found = try topic.personal?.seen(by: CELProgram(expression))
        #expect(found?.description == seen)
    }
}
