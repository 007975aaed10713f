"use strict";
// Shows /openapi.json. Everything is put in as text, never as markup.

const make = (tag, attributes, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
};

// Text in which `words` in backticks are code.
const prose = (text) =>
  (text || "").split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));

const block = (text) => {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return make("div", { class: "copied" }, make("pre", {}, make("code", {}, text)), navigator.clipboard ? button : null);
};

const table = (head, rows) =>
  make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, head.map((cell) => make("th", { scope: "col" }, cell)))),
    make("tbody", {}, rows)));

const schemaName = (schema) => (schema && schema.$ref ? schema.$ref.split("/").pop() : null);

const schemaLink = (name) => make("a", { href: `#schema-${name}` }, name);

// What a schema allows, in a few words.
const typeOf = (schema) => {
  if (!schema) return ["anything"];
  const name = schemaName(schema);
  if (name) return [schemaLink(name)];
  for (const several of [schema.oneOf, schema.anyOf]) {
    if (several) {
      const words = several.map((one) => (one.type === "null" ? ["null"] : typeOf(one)));
      return words.flatMap((word, index) => (index ? [" or ", ...word] : word));
    }
  }
  if (schema.allOf) return schema.allOf.flatMap((one, index) => (index ? [" and ", ...typeOf(one)] : typeOf(one)));
  const types = [schema.type].flat().filter(Boolean);
  if (types.includes("array")) return ["list of ", ...typeOf(schema.items), types.includes("null") ? " or null" : ""];
  let text = types.join(" or ") || "anything";
  if (schema.format) text += ` (${schema.format})`;
  return [text];
};

const limitsOf = (schema) => {
  const words = [];
  if (schema.minimum !== undefined) words.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) words.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) words.push(`at most ${schema.maxLength} bytes`);
  if (schema.maxItems !== undefined) words.push(`at most ${schema.maxItems} entries`);
  return words.length ? ` (${words.join(", ")})` : "";
};

const fieldsOf = (api, schema) => {
  const name = schemaName(schema);
  if (name) return fieldsOf(api, api.components.schemas[name]);
  const fields = [];
  for (const part of schema.allOf || []) fields.push(...fieldsOf(api, part));
  const required = schema.required || [];
  for (const [field, value] of Object.entries(schema.properties || {})) {
    fields.push({ field, value, required: required.includes(field) });
  }
  return fields;
};

const fieldTable = (api, schema) => {
  const fields = fieldsOf(api, schema);
  if (!fields.length) return null;
  return table(["Field", "Type", ""], fields.map(({ field, value, required }) => make("tr", {},
    make("td", {}, make("code", {}, field), required ? make("span", { title: "always there", class: "no" }, " *") : null),
    make("td", {}, typeOf(value)),
    make("td", {}, prose(value.description), limitsOf(value)))));
};

const exampleOf = (api, content) => {
  if (!content) return undefined;
  if (content.example !== undefined) return content.example;
  const named = Object.values(content.examples || {})[0];
  if (named) return named.value;
  const schema = api.components.schemas[schemaName(content.schema)] || content.schema || {};
  if (schema.examples) return schema.examples[0];
  if (schema.example !== undefined) return schema.example;
  for (const one of schema.oneOf || []) {
    const found = exampleOf(api, { schema: one });
    if (found !== undefined) return found;
  }
  return undefined;
};

const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

const bodyOf = (operation) => Object.entries((operation.requestBody || {}).content || {})[0] || [];

const bodySchema = (content) =>
  content.schema.oneOf ? content.schema.oneOf.find((one) => one.type !== "null") : content.schema;

const curlOf = (api, method, path, operation) => {
  const words = ["curl"];
  if (method !== "GET") words.push(`-X ${method}`);
  words.push(`${location.origin}${path}`);
  if (operation.security) {
    const operator = operation.security.some((one) => "operatorKey" in one);
    words.push(`\\\n  -H "Authorization: Bearer ${operator ? "$CONDUCTOR_ADMIN_KEY" : "$KEY"}"`);
  }
  const [type, content] = bodyOf(operation);
  const example = content && exampleOf(api, { ...content, schema: bodySchema(content) });
  if (example !== undefined) {
    words.push(`\\\n  -H "Content-Type: ${type}"`, `\\\n  -d '${JSON.stringify(example).replaceAll("'", "'\\''")}'`);
  }
  return words.join(" ");
};

const showParameters = (operation) => {
  if (!operation.parameters) return [];
  const rows = operation.parameters.map((parameter) => make("tr", {},
    make("td", {}, make("code", {}, parameter.name), parameter.required ? make("span", { class: "no" }, " *") : null),
    make("td", {}, parameter.in),
    make("td", {}, typeOf(parameter.schema)),
    make("td", {}, prose(parameter.description))));
  return [make("h4", {}, "Parameters"), table(["Name", "In", "Type", ""], rows)];
};

const showBody = (api, operation) => {
  const [, content] = bodyOf(operation);
  if (!content) return [];
  const schema = bodySchema(content);
  const name = schemaName(schema);
  return [
    make("h4", {}, "Body ", name ? schemaLink(name) : null),
    operation.requestBody.description ? make("p", {}, prose(operation.requestBody.description)) : null,
    fieldTable(api, schema),
  ];
};

const showAnswers = (api, operation) => {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const content = Object.values(response.content || {})[0];
    const example = exampleOf(api, content);
    const headers = Object.entries(response.headers || {}).map(([name, header]) =>
      make("p", { class: "quiet" }, make("code", {}, name), " ", prose(header.description)));
    return make("tr", {},
      make("td", {}, make("b", { class: status < 400 ? "ok" : "no" }, status)),
      make("td", {}, content ? typeOf(content.schema) : "no body"),
      make("td", {}, make("p", {}, prose(response.description)), headers,
        example === undefined ? null
          : make("details", {}, make("summary", { class: "quiet" }, "Example"), block(pretty(example)))));
  });
  return [make("h4", {}, "Answers"), table(["Status", "Body", ""], rows)];
};

const keyOf = (operation) => {
  if (!operation.security) return "No key.";
  return operation.security.some((one) => "operatorKey" in one)
    ? "Needs the operator's key, where one is configured." : "Needs a tenant's key.";
};

const showCall = (api, { method, path, operation }) =>
  make("section", { class: "call", id: operation.operationId },
    make("h3", {}, make("span", { class: `method ${method}` }, method), make("code", {}, path)),
    make("p", {}, make("b", {}, operation.summary || ""), ". ", prose(operation.description), " ",
      make("span", { class: "quiet" }, keyOf(operation))),
    block(curlOf(api, method, path, operation)),
    showParameters(operation), showBody(api, operation), showAnswers(api, operation));

const callsOf = (api) => {
  const calls = [];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of ["get", "post", "put", "patch", "delete"]) {
      if (item[method]) calls.push({ method: method.toUpperCase(), path, operation: item[method] });
    }
  }
  return calls;
};

const showKeys = (api) => [
  make("h2", { id: "keys" }, "Keys"),
  make("p", {}, "A key goes into the header ", make("code", {}, "Authorization: Bearer <key>"), "."),
  table(["Key", ""], Object.entries(api.components.securitySchemes || {}).map(([name, scheme]) =>
    make("tr", {}, make("td", {}, make("code", {}, name)), make("td", {}, prose(scheme.description))))),
];

// Every kind of problem, under the address that its `type` names.
const showProblems = (api) => {
  const rows = api.components.schemas.Problem.examples.map((problem) =>
    make("tr", { id: problem.type.split("#")[1] },
      make("td", {}, make("b", { class: "no" }, String(problem.status))),
      make("td", {}, make("code", {}, problem.type.split("#problem-")[1])),
      make("td", {}, make("b", {}, problem.title), ". ", prose(problem.details ? "`details` lists each fault." : problem.detail))));
  return [
    make("h2", { id: "problems" }, "Problems"),
    make("p", {}, "Errors are ", make("code", {}, "application/problem+json"), "; ", make("code", {}, "type"), " says which."),
    table(["Status", "Type", ""], rows),
  ];
};

const showSchemas = (api) => [
  make("h2", { id: "schemas" }, "Schemas"),
  Object.entries(api.components.schemas).map(([name, schema]) => make("section", { class: "call", id: `schema-${name}` },
    make("h3", {}, name),
    schema.description ? make("p", {}, prose(schema.description)) : null,
    schema.enum ? make("p", {}, schema.enum.map((word) => [make("code", {}, word), " "])) : null,
    schema.oneOf ? make("p", {}, typeOf(schema)) : null,
    fieldTable(api, schema))),
];

// What the server posts by itself.
const showPosts = (api) => {
  const rows = Object.entries(api.webhooks || {}).map(([event, { post }]) => make("tr", {},
    make("td", {}, make("code", {}, event)),
    make("td", {}, typeOf(bodyOf(post)[1].schema)),
    make("td", {}, prose(post.summary))));
  const first = Object.values(api.webhooks || {})[0];
  return [
    make("h2", { id: "posts" }, "What callbacks post"),
    make("p", {}, prose(first && first.post.description)),
    table(["Event", "Body", ""], rows),
  ];
};

const show = (api) => {
  const nav = document.getElementById("nav");
  const main = document.getElementById("main");
  const calls = callsOf(api);
  const link = (href, ...words) => make("a", { href }, words);
  nav.append(make("b", {}, `${api.info.title} ${api.info.version}`));
  main.replaceChildren(
    make("h1", {}, `${api.info.title} API`),
    make("p", { class: "quiet" }, `Version ${api.info.version} · `, link("/openapi.json", "openapi.json")),
    make("p", {}, prose(api.info.description)), ...showKeys(api).flat());
  for (const tag of api.tags || []) {
    const mine = calls.filter(({ operation }) => (operation.tags || []).includes(tag.name));
    main.append(make("h2", {}, tag.name), make("p", {}, prose(tag.description)), ...mine.map((call) => showCall(api, call)));
    nav.append(make("h2", {}, tag.name), ...mine.map(({ method, path, operation }) => link(`#${operation.operationId}`,
      make("span", { class: `method ${method}` }, method), operation.summary || path)));
  }
  main.append(...showPosts(api).flat(), ...showProblems(api).flat(), ...showSchemas(api).flat(2));
  nav.append(make("h2", {}, "Reference"), link("#keys", "Keys"), link("#posts", "What callbacks post"), link("#problems", "Problems"), link("#schemas", "Schemas"));
  // The place that the address names did not exist when the page was loaded: go there once more.
  if (location.hash) location.replace(location.hash);
};

fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => {
    document.getElementById("main").append(make("p", { class: "no" }, `The document cannot be shown: ${error.message}`));
  });
