// The list of products: create one.
import { api } from "./api.js";
import { act, one, settingsOf } from "./dom.js";

const form = one("#create");
if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(one("button", form), async () => {
      const product = await api.createProduct(new FormData(form).get("name"), settingsOf(form));
      location.assign(`/products/${product.id}`);
    });
  });
}
