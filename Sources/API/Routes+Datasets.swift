import Base
import HTTP

/// Datasets over HTTP.
extension Routes {
    func datasets(_ server: HTTPServer) {
        func read(_ path: String, _ body: @escaping @Sendable (any NodeReading, WebRequest) throws -> JSON) {
            server.route("GET", path) { [node, long] request in .json(try await long.run { try body(node, request) }) }
        }
        func work(_ path: String, _ body: @escaping @Sendable (any NodeReading, JSON) throws -> JSON) {
            server.route("POST", path) { [node, long] request in
                guard request.header("content-type")?.hasPrefix("application/json") == true,
                    let asked = try? JSON(parsing: request.body), asked.object != nil
                else {
                    throw APIError(
                        "bad-json", "this is asked for with Content-Type: application/json and an object as body")
                }
                return .json(try await long.run { try body(node, asked) })
            }
        }
        read("/v1/datasets") { node, _ in try node.datasetList() }
        read("/v1/datasets/:dataset") { node, request in try node.dataset(request.parameters["dataset"] ?? "") }
        read("/v1/datasets/:dataset/diff/:other") { node, request in
            try node.datasetDifference(request.parameters["dataset"] ?? "", request.parameters["other"] ?? "")
        }
        work("/v1/datasets") { node, asked in try node.createDataset(asked) }
        work("/v1/datasets/verify") { node, asked in try node.verifyDataset(try text("dataset", asked)) }
        work("/v1/datasets/pin") { node, asked in try node.pinDataset(try text("dataset", asked)) }
        work("/v1/datasets/remove") { node, asked in try node.removeDataset(try text("dataset", asked)) }
        work("/v1/datasets/export") { node, asked in
            try node.exportDataset(
                try text("dataset", asked), format: try text("format", asked), to: try text("path", asked))
        }
        work("/v1/datasets/files") { node, asked in
            try node.addFiles(try text("name", asked), directory: try text("directory", asked))
        }
    }
}

private func text(_ name: String, _ asked: JSON) throws -> String {
    guard let value = asked[name]?.string, !value.isEmpty else {
        throw APIError("bad-json", "the body has no text '\(name)'")
    }
    return value
}
