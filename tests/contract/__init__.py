"""The API, held to the seed's contract and to its own OpenAPI document."""
