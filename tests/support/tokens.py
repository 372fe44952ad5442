"""Tokens of many makers, with made-up bodies, for a tree in which scanners are to find them.

Each line: how a file has it, with the token's fixed parts cut by a bar, so that no scanner takes this list
for a leak, and `{KIND NUMBER}` for so many letters drawn by lot.
"""

from __future__ import annotations

import random
import re
import string

LETTERS = {
    "a": string.ascii_letters + string.digits,
    "h": "0123456789abcdef",
    "l": string.ascii_lowercase + string.digits,
    "u": string.ascii_uppercase + string.digits,
    "w": string.ascii_letters + string.digits + "_-",
    "b": string.ascii_letters + string.digits + "+/",
    "d": string.digits,
}
FORMATS = """
adafruit_io_key = ai|o_{a28}
ADOBE_CLIENT_SECRET = p8|e-{a32}
age = AGE-SEC|RET-KEY-1QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE
airtable_token = pa|t{a14}.{h64}
ALIBABA_ACCESS_KEY_ID = LT|AI{a20}
anthropic_api_key = sk-an|t-api03-{w93}AA
artifactory_api_key = AK|Cp{a69}
asana_client_id = {d16} asana_secret = {l32}
ATLASSIAN_TOKEN = ATA|TT3xFfGF0{w180}{u8}
AWS_ACCESS_KEY_ID = AK|IA{x16}
azure_client_secret = {a3}8|Q~{w34}
AccountName=store;AccountKey={b86}==;EndpointSuffix=core.win|dows.net
beamer_api_key = b|_{w44}
bitbucket_client_secret = {w64}
BITBUCKET_TOKEN = ATB|B{a32}
brevo_api_key = xkey|sib-{h64}-{a16}
buildkite_token = bku|a_{h40}
cloudflare_api_key = {w40}
CLOUDFLARE_ORIGIN_CA = v1.0-|{h24}-{h146}
clojars_token = CLO|JARS_{l60}
cohere_api_token = {a40}
databricks_token = dap|i{h32}
datadog_api_key = {l40}
DIGITALOCEAN_TOKEN = do|p_v1_{h64}
digitalocean_oauth = do|o_v1_{h64}
digitalocean_refresh = do|r_v1_{h64}
discord_client_secret = {w32}
discord_webhook = https://disc|ord.com/api/webhooks/{d18}/{w68}
DOCKER_PAT = dckr|_pat_{w27}
doppler_token = dp|.pt.{a43}
doppler_service = dp|.st.prd.{a43}
dropbox_token = sl|.{w135}
duffel_token = duf|fel_live_{w43}
dynatrace_token = dt0|c01.{u24}.{u64}
easypost_token = EZ|AK{a54}
EASYPOST_TEST = EZ|TK{a54}
facebook_token = EAA|{a100}
fastly_api_key = {w32}
figma_token = fig|d_{w40}
flutterwave_key = FLW|SECK_TEST-{h12}
fly_token = fo|1_{w43}
frameio_token = fi|o-u-{w64}
GCP_API_KEY = AI|za{w35}
GITHUB_PAT = gh|p_{a36}
GITHUB_OAUTH = gh|o_{a36}
GITHUB_APP = gh|s_{a36}
GITHUB_REFRESH = gh|r_{a36}
GITHUB_USER = gh|u_{a36}
GITHUB_FINE = github|_pat_{a22}_{a59}
GITLAB_PAT = glp|at-{w20}
GITLAB_RUNNER = glr|t-{w20}
GITLAB_DEPLOY = gl|dt-{w20}
GITLAB_PIPELINE = gl|ptt-{h40}
GITLAB_AGENT = glag|ent-{w50}
google_oauth = GOC|SPX-{w28}
grafana_cloud = gl|c_{b80}
grafana_service = gl|sa_{a32}_{h8}
hashicorp_tf = {a14}.atlas|v1.{w64}
heroku_api_key = HRK|U-{w60}
HUGGINGFACE = h|f_{A34}
hubspot_api_key = pat|-na1-{h8}-{h4}-{h4}-{h4}-{h12}
intercom_token = {w60}
JFROG_IDENTITY = cm|VmdGtuO{a57}
jwt = ey|JhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.ey|JzdWIiOiI5NzMxIiwicm9sZSI6Im9wcyJ9.{w43}
launchdarkly = a|pi-{h8}-{h4}-{h4}-{h4}-{h12}
linear_api_key = lin|_api_{a40}
linkedin_client_secret = {a16}
lob_api_key = liv|e_{h35}
mailchimp_api_key = {h32}-us|12
mailgun_key = ke|y-{h32}
mailgun_signing = {h32}-{h8}-{h8}
mapbox_token = pk|.{a60}.{a22}
MONGODB_URI = mongodb+srv:|//admin:{a16}@cluster0.ab1cd.mongodb.net/prod
netlify_token = nfp|_{a36}
NEWRELIC_USER = NRA|K-{u27}
NEWRELIC_INGEST = {h36}FFFF|NRAL
notion_token = nt|n_{d11}{a35}
NPM_TOKEN = np|m_{a36}
nuget_key = oy|2{l43}
octopus_api_key = API|-{u26}
okta_token = 0|0{w40}
OPENAI_API_KEY = sk-pr|oj-{a20}T3BlbkFJ{a20}
openai_legacy = s|k-{a20}T3Blbk|FJ{a20}
perplexity_key = pp|lx-{a48}
PLANETSCALE = psc|ale_tkn_{w43}
planetscale_password = psc|ale_pw_{w43}
postman_key = PM|AK-{h24}-{h34}
postgres = postgres:|//app:{a18}@db.internal.corp.net:5432/app
prefect_token = pn|u_{a36}
pulumi_token = pu|l-{h40}
PYPI_TOKEN = pyp|i-AgEIcHlwaS5vcmc{w80}
readme_token = rd|me_{l70}
replicate_token = r|8_{a37}
rubygems_key = ruby|gems_{h48}
scaleway_secret = SCW|{u17} {h8}-{h4}-{h4}-{h4}-{h12}
SENDGRID_KEY = SG|.{w22}.{w43}
sendinblue = xkey|sib-{h64}-{a16}
sentry_token = sntr|ys_eyJpYXQiOjE3{a60}_{a43}
sentry_user = sntr|yu_{h64}
shippo_token = shippo|_live_{h40}
SHOPIFY_TOKEN = shp|at_{h32}
SHOPIFY_SECRET = shp|ss_{h32}
SLACK_BOT = xox|b-{d12}-{d13}-{a24}
SLACK_USER = xox|p-{d12}-{d12}-{d13}-{h32}
SLACK_APP = xap|p-1-A{u10}-{d13}-{h64}
slack_webhook = https://hooks.sl|ack.com/services/T{u10}/B{u10}/{a24}
snyk_token = {h8}-{h4}-{h4}-{h4}-{h12}
sonar_token = sq|u_{h40}
square_token = EAA|A{w60}
STRIPE_KEY = sk|_live_{a48}
STRIPE_RESTRICTED = rk|_live_{a48}
sumologic_access_key = {a64}
supabase_key = sb|p_{h40}
TAILSCALE_KEY = tsk|ey-auth-k{a11}CNTRL-{a32}
TELEGRAM_TOKEN = {d10}:|AA{w33}
TERRAFORM_TOKEN = {a14}.atlas|v1.{w67}
twilio_api_key = S|K{h32}
twitch_token = {l30}
typeform_token = tf|p_{w59}
VAULT_TOKEN = hv|s.{w95}
VAULT_BATCH = hv|b.{w140}
vercel_token = vc|p_{a56}
yandex_key = AQ|VN{w37}
zendesk_secret_key = {l40}
"""


def planted() -> dict[str, str]:
    """A file for each, by its name: the same at each call."""
    lot = random.Random(20241129)

    def drawn(match: re.Match[str]) -> str:
        kind, number = match[1], int(match[2])
        letters = {"x": string.ascii_uppercase + "234567", "A": string.ascii_letters}.get(kind) or LETTERS[
            kind
        ]
        return "".join(lot.choice(letters) for _ in range(number))

    files = {}
    for number, line in enumerate(FORMATS.strip().split("\n")):
        name = re.sub(r"\W", "", line.partition(" = ")[0])[:30]
        files[f"/srv/app/{number:03}-{name}.conf"] = (
            re.sub(r"\{(\w)(\d+)\}", drawn, line).replace("|", "") + "\n"
        )
    return files
